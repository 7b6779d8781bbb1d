"""Any method on any model at any scale (arXiv 2410.01276).

  python -m jaxmu.main --config=configs/unlearn.py:METHOD,MODEL,SCALE

In any order; the model is `resnet18` and the scale `digits` where they are not
given. A method or a model of your own is named by file or import path:

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
