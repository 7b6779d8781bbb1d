"""Repeated noise injection on TinyViT-11M (arXiv 2410.01276).

python -m jaxmu.main --config=configs/rni_tinyvit.py
"""

from configs import common


def get_config(scale: str = ''):
  """Return the configuration at a scale of `configs/common.py`."""
  config = common.base('rni_tinyvit', 'vit11m', scale)
  common.unlearn(config, 'rni', scale)
  return config
