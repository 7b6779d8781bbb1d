"""Exact unlearning of the last k blocks on ResNet-18 (arXiv 2410.01276).

python -m jaxmu.main --config=configs/euk_resnet.py
"""

from configs import common


def get_config(scale: str = ''):
  """Return the configuration at a scale of `configs/common.py`."""
  config = common.base('euk_resnet', 'resnet18', scale)
  common.unlearn(config, 'euk', scale)
  return config
