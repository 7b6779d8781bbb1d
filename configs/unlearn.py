"""Any method on any model at any scale (arXiv 2410.01276).

  python -m jaxmu.main --config=configs/unlearn.py:METHOD,MODEL,SCALE

The order is free; the default model is `resnet18`, the default scale `digits`.
A custom method or model is named by file or import path:

  --config=configs/unlearn.py:scrub,vit11m,cifar10
  --config=configs/unlearn.py:scrub,cifar10-ulira,paper
  --config=configs/unlearn.py:my_method.py,resnet18,digits --compare=ct,msg
  --config=configs/unlearn.py:ft,my_package.nets:Net
"""

from ml_collections import config_dict

from jaxmu.study import recipes


def get_config(choice: str = ''):
  """Return the configuration of METHOD,MODEL,SCALE."""
  return config_dict.ConfigDict(recipes.unlearn(choice))
