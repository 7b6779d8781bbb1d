"""Saliency unlearning on ResNet-18 (arXiv 2410.01276).

  python -m jaxmu.main --config=configs/salun_resnet.py

An independent re-run of the benchmark on CIFAR-10, with searched
hyper-parameters, found RetDev .072, Indisc .992, RTE 44.
"""

from configs import common


def get_config(scale: str = ''):
  """Return the configuration at a scale of `configs/common.py`."""
  config = common.base('salun_resnet', 'resnet18', scale)
  common.unlearn(config, 'salun', scale)
  return config
