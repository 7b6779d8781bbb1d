"""Masked Small Gradients on ResNet-18 (arXiv 2410.01276).

  python -m jaxmu.main --config=configs/msg_resnet.py

On digits (16 original, 32 retrained and 32 unlearned networks of width 8; 75 to
115 s on two CPU cores, compilation included) the AUC of U-LiRA is .581
[.537, .626] for the originals, .493 [.456, .531] for the retrained models and
.517 [.500, .534] for MSG, with RetDev .071. These numbers are for one machine
and version: rounding alone has moved that of the originals from .568
[.547, .590]. Without a leak, an interval contains chance in at most 19 of 20
seeds.

An independent re-run of the benchmark on CIFAR-10, with searched
hyper-parameters, gave RetDev .137, Indisc .984, RTE 7.4.
"""

from ml_collections import config_dict

from jaxmu.study import recipes


def get_config(scale: str = ''):
  """Return the configuration at a scale of `jaxmu.study.recipes`."""
  return config_dict.ConfigDict(recipes.job_config('msg', scale=scale))
