"""Repeated noise injection on ResNet-18 (arXiv 2410.01276).

  python -m jaxmu.main --config=configs/rni_resnet.py

An independent re-run of the benchmark on CIFAR-10, with searched
hyper-parameters, found RetDev .092, Indisc .966, RTE 3.6.
"""

from configs import common


def get_config(scale: str = ''):
  """Return the configuration at a scale of `configs/common.py`."""
  config = common.base('rni_resnet', 'resnet18', scale)
  common.unlearn(config, 'rni', scale)
  return config
