"""A study: from a configuration to trained populations, scores and a report.

The modules, in the order of the work:

  settings   checks a configuration
  job        data, populations and the addresses of their results
  store      finished shards on disk
  shelves    what work directories hold, and damaged shards
  originals  original models that come from files
  execution  memory, speed and devices of the machine
  stages     training, learning curves, prediction and timing, shard by shard
  evaluate   from predictions to numbers
  planner    the cost of a job, and its devices and chunks
  forecast   the same for a machine that is not available
  compiled   the cost of a compiled program
  publish    tables, plots and pages in the work directory
  run        all stages in order
"""
