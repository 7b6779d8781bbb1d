"""Forget, contrast, strengthen on ResNet-18 (arXiv 2410.01276).

  python -m jaxmu.main --config=configs/fcs_resnet.py

An independent re-run of the benchmark on CIFAR-10, with searched
hyper-parameters, found RetDev .063, Indisc .988, RTE 8.7.
"""

from configs import common


def get_config(scale: str = ''):
  """Return the configuration at a scale of `configs/common.py`."""
  config = common.base('fcs_resnet', 'resnet18', scale)
  common.unlearn(config, 'fcs', scale)
  return config
