"""SCRUB on ResNet-18 (arXiv 2410.01276).

  python -m jaxmu.main --config=configs/scrub_resnet.py

An independent re-run of the benchmark on CIFAR-10, with searched
hyper-parameters, found RetDev .088, Indisc .984, RTE 2.5.
"""

from configs import common


def get_config(scale: str = ''):
  """Return the configuration at a scale of `configs/common.py`."""
  config = common.base('scrub_resnet', 'resnet18', scale)
  common.unlearn(config, 'scrub', scale)
  return config
