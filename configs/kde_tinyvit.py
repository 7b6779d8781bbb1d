"""Knowledge distillation with entropy on TinyViT-11M (arXiv 2410.01276).

python -m jaxmu.main --config=configs/kde_tinyvit.py
"""

from configs import common


def get_config(scale: str = ''):
  """Return the configuration at a scale of `configs/common.py`."""
  config = common.base('kde_tinyvit', 'vit11m', scale)
  common.unlearn(config, 'kde', scale)
  return config
