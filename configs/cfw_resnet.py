"""Confuse, fine-tune, weaken on ResNet-18 (arXiv 2410.01276).

  python -m jaxmu.main --config=configs/cfw_resnet.py

An independent re-run of the benchmark on CIFAR-10, with searched
hyper-parameters, found RetDev .123, Indisc .974, RTE 10.
"""

from configs import common


def get_config(scale: str = ''):
  """Return the configuration at a scale of `configs/common.py`."""
  config = common.base('cfw_resnet', 'resnet18', scale)
  common.unlearn(config, 'cfw', scale)
  return config
