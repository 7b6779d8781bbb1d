"""Masked Small Gradients on TinyViT-11M (arXiv 2410.01276).

python -m jaxmu.main --config=configs/msg_tinyvit.py
"""

from configs import common


def get_config(scale: str = ''):
  """Return the configuration at a scale of `configs/common.py`."""
  config = common.base('msg_tinyvit', 'vit11m', scale)
  common.unlearn(config, 'msg', scale)
  return config
