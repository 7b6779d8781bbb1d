"""Catastrophic forgetting of the last k blocks on ResNet-18 (arXiv 2410.01276).

  python -m jaxmu.main --config=configs/cfk_resnet.py

An independent re-run of the benchmark on CIFAR-10, with searched
hyper-parameters, found RetDev .090, Indisc .930, RTE 5.2.
"""

from configs import common


def get_config(scale: str = ''):
  """Return the configuration at a scale of `configs/common.py`."""
  config = common.base('cfk_resnet', 'resnet18', scale)
  common.unlearn(config, 'cfk', scale)
  return config
