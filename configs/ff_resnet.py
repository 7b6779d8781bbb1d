"""Fisher forgetting on ResNet-18 (arXiv 2410.01276).

  python -m jaxmu.main --config=configs/ff_resnet.py

An independent re-run of the benchmark on CIFAR-10, with searched
hyper-parameters, found RetDev 2.68 at chance accuracy, outputs not finite.
"""

from configs import common


def get_config(scale: str = ''):
  """Return the configuration at a scale of `configs/common.py`."""
  config = common.base('ff_resnet', 'resnet18', scale)
  common.unlearn(config, 'ff', scale)
  return config
