"""A study: from a configuration to trained populations, scores and a report.

Modules in the order of the work:

  settings   checks a configuration
  job        data, populations and the addresses of their results
  store      finished shards on disk
  originals  original models that come from files
  execution  memory, speed and devices of this machine
  stages     training, prediction and timing, shard by shard
  curves     accuracy while models are trained
  evaluate   from predictions to numbers
  planner    what a job would cost, and which chunks it runs in
  publish    tables, plots and pages in the work directory
  run        all stages in order
"""
