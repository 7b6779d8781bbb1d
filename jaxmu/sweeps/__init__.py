"""A sweep: many jobs and searches, planned and run as one graph of units.

design       which cells and studies there are, and the job of each
graph        the units of work and what each of them needs
plan         models, work, time and disk, before anything runs
engine       the order of the units, and what happens when one fails
ray_engine   the same on a Ray cluster
work         how a unit is made, by the stages of jobs and of searches
status       what is done, running, failed and missing
pruning      stored work that no configuration refers to
leaderboard  the results of all cells
"""
