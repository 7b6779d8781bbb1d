"""Successive random labels on ResNet-18 (arXiv 2410.01276).

  python -m jaxmu.main --config=configs/srl_resnet.py

An independent re-run of the benchmark on CIFAR-10, with searched
hyper-parameters, found RetDev .106, Indisc .990, RTE 4.7.
"""

from configs import common


def get_config(scale: str = ''):
  """Return the configuration at a scale of `configs/common.py`."""
  config = common.base('srl_resnet', 'resnet18', scale)
  common.unlearn(config, 'srl', scale)
  return config
