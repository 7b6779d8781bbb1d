"""Influence unlearning on ResNet-18 (arXiv 2410.01276).

  python -m jaxmu.main --config=configs/iu_resnet.py

An independent re-run of the benchmark on CIFAR-10, with searched
hyper-parameters, found RetDev .163, Indisc .895, RTE 54.
"""

from configs import common


def get_config(scale: str = ''):
  """Return the configuration at a scale of `configs/common.py`."""
  config = common.base('iu_resnet', 'resnet18', scale)
  common.unlearn(config, 'iu', scale)
  return config
