"""All 18 methods on one data set: the paper's table (arXiv 2410.01276).

  python -m jaxmu.main --config=configs/benchmark.py

Originals, retrained models and every method at the same initialisations, paired
by initialisation. The table (mean and standard deviation over initialisations)
is printed and kept in `paper_table.md`.
"""

from configs import common
from jaxmu import methods


def get_config(scale: str = ''):
  """Return the configuration at a scale of `configs/common.py`."""
  config = common.base('benchmark', 'resnet18', scale)
  common.unlearn(config, 'ft', scale)
  for method in methods.METHODS:
    if method not in (*methods.BASELINES, 'ft'):
      common.compare(config, method, scale)
  if common.is_small(config):
    config.splits.design = 'main'
    config.splits.seeds = 6
    config.splits.num_splits = config.splits.forget_sets = 1
    config.run.shard = 6
  return config
