"""Masked Small Gradients on ResNet-18 (arXiv 2410.01276).

python -m jaxmu.main --config=configs/msg_resnet.py
"""

from configs import common


def get_config(scale: str = ''):
  """Return the configuration at a scale of `configs/common.py`."""
  config = common.base('msg_resnet', 'resnet18', scale)
  common.unlearn(
    config,
    'msg',
    learning_rate=1e-3,
    momentum=0.9,
    weight_decay=5e-4,
    reinit_fraction=0.3,
    num_epochs=5,
    batch_size=64,
  )
  return config
