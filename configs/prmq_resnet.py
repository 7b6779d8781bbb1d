"""Prune, renew, match entropy, quantise on ResNet-18 (arXiv 2410.01276).

  python -m jaxmu.main --config=configs/prmq_resnet.py

An independent re-run of the benchmark on CIFAR-10, with searched
hyper-parameters, found RetDev .068, Indisc .970, RTE 3.3.
"""

from configs import common


def get_config(scale: str = ''):
  """Return the configuration at a scale of `configs/common.py`."""
  config = common.base('prmq_resnet', 'resnet18', scale)
  common.unlearn(config, 'prmq', scale)
  return config
