"""Masked Small Gradients on ResNet-18 (arXiv 2410.01276).

  python -m jaxmu.main --config=configs/msg_resnet.py

An independent re-run of the benchmark on CIFAR-10, with searched
hyper-parameters, found RetDev .137, Indisc .984, RTE 7.4.
"""

from configs import common


def get_config(scale: str = ''):
  """Return the configuration at a scale of `configs/common.py`."""
  config = common.base('msg_resnet', 'resnet18', scale)
  common.unlearn(config, 'msg')
  return config
