"""All 18 methods on one data set: the paper's table (arXiv 2410.01276).

  python -m jaxmu.main --config=configs/benchmark.py

The originals, the retrained models and every method start from the same
initialisations and are paired by initialisation. The table (mean and standard
deviation over initialisations) is printed and written to `paper_table.md`.

An independent re-run of the benchmark on CIFAR-10 with ResNet-18 and searched
hyper-parameters gave (ff: chance accuracy, outputs not finite):

  method        RetDev  Indisc   RTE
  bt              .109    .975    41
  cfk             .090    .930   5.2
  cfw             .123    .974    10
  ct              .126    .987    22
  fcs             .063    .988   8.7
  ff              2.68
  ft              .077    .993    14
  ga              .265    .920   390
  iu              .163    .895    54
  kde             .156    .954   3.5
  msg             .137    .984   7.4
  neggrad_plus    .083    .975   2.4
  prmq            .068    .970   3.3
  rni             .092    .966   3.6
  salun           .072    .992    44
  scrub           .088    .984   2.5
  srl             .106    .990   4.7
"""

from ml_collections import config_dict

from jaxmu.study import recipes


def get_config(scale: str = ''):
  """Return the configuration at a scale of `jaxmu.study.recipes`."""
  return config_dict.ConfigDict(recipes.benchmark(scale))
