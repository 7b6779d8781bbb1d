"""Convolution Transpose on ResNet-18 (arXiv 2410.01276).

  python -m jaxmu.main --config=configs/ct_resnet.py

An independent re-run of the benchmark on CIFAR-10, with searched
hyper-parameters, found RetDev .126, Indisc .987, RTE 22.
"""

from configs import common


def get_config(scale: str = ''):
  """Return the configuration at a scale of `configs/common.py`."""
  config = common.base('ct_resnet', 'resnet18', scale)
  common.unlearn(config, 'ct', scale)
  return config
