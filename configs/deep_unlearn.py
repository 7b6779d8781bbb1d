"""The whole benchmark as one sweep (arXiv 2410.01276).

  python -m jaxmu.sweep --config=configs/deep_unlearn.py

The default scale is `digits`, which needs no download. `laptop` is the study of
docs/results, some hours of two processor cores. `paper` has the cells
and the budgets of the benchmark: 5 data sets, 2 models, 18 methods, a search
of 3 × 100 trials per method, 10 initialisations, and the study of U-LiRA.
`reference` has its rules as well, with which it trains 99,520 models:

  python -m jaxmu.sweep --config=configs/deep_unlearn.py:reference --plan
"""

from jaxmu.sweeps import design


def get_config(scale: str = ''):
  """Return the configuration at a scale of `jaxmu.sweeps.design`."""
  return design.deep_unlearn(scale)
