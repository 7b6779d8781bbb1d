"""Published results: what a finished job leaves, small enough to ship.

A folder of results holds

  record.json           what was run: command, configuration, seeds, hashes of
                        the data and the splits, versions, hardware, date,
                        time, and methods of which every trial failed
                        (`no_setting`)
  results.csv           numbers with intervals, as in the report of the job
  per_cluster.csv       one value per initialisation or pair of splits
  timing.csv            run times
  curves.csv            accuracy during training, where it was recorded
  settings/METHOD.json  of a search: the chosen setting of each method
  trials.csv.gz         of a search: every trial
  scores/               of a study of U-LiRA: rounded log-odds of every model
  SHA256SUMS            of all these files

Its name is its path below this folder, such as `default_job`. The kinds are in
`KINDS`. `python -m jaxmu.reproduce` compares the numbers with those of another
run; `benchmarks/publish_study.py` writes folders of finished work, and
`benchmarks/results_page.py` that of the claims (`jaxmu.claims`).

  record      reads folders and checks them
  rows        the published numbers by name, and the tolerance of each
  scores      rounded log-odds, and attacks on them
  computed    numbers that a function computes from other published results
  running     runs the job of a number again, or reads what another run left
  writing     writes folders
"""

import pathlib

ROOT = pathlib.Path(__file__).parent

KINDS = {
  'table': 'the report of a job',
  'search': 'the settings that a search chose',
  'replicates': 'retrained models of one job with several seeds',
  'computed': 'numbers computed from other published results',
}
