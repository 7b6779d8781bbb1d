"""Bad teacher on ResNet-18 (arXiv 2410.01276).

  python -m jaxmu.main --config=configs/bt_resnet.py

An independent re-run of the benchmark on CIFAR-10, with searched
hyper-parameters, found RetDev .109, Indisc .975, RTE 41.
"""

from configs import common


def get_config(scale: str = ''):
  """Return the configuration at a scale of `configs/common.py`."""
  config = common.base('bt_resnet', 'resnet18', scale)
  common.unlearn(config, 'bt', scale)
  return config
