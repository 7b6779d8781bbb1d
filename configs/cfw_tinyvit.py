"""Confuse, fine-tune, weaken on TinyViT-11M (arXiv 2410.01276).

python -m jaxmu.main --config=configs/cfw_tinyvit.py
"""

from configs import common


def get_config(scale: str = ''):
  """Return the configuration at a scale of `configs/common.py`."""
  config = common.base('cfw_tinyvit', 'vit11m', scale)
  common.unlearn(config, 'cfw', scale)
  return config
