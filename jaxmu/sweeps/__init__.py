"""A sweep: many jobs and searches, planned and run as one graph of units.

design       which cells and studies there are, and the job of each
graph        the units of work and what each of them needs
plan         models, work, time and disk, before anything runs
"""
