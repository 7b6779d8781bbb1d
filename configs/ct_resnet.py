"""Convolution Transpose on ResNet-18 (arXiv 2410.01276).

  python -m jaxmu.main --config=configs/ct_resnet.py

This is the shortest template of a custom configuration: copy it anywhere and
change fields of what `job_config` returns. An independent re-run of the
benchmark on CIFAR-10, with searched hyper-parameters, gave RetDev .126, Indisc
.987, RTE 22.
"""

from ml_collections import config_dict

from jaxmu.study import recipes


def get_config(scale: str = ''):
  """Return the configuration at a scale of `jaxmu.study.recipes`."""
  return config_dict.ConfigDict(recipes.job_config('ct', scale=scale))
