"""The unlearning methods, one per file, and the table of all of them."""

from typing import Any

from jaxmu import hparams as hp
from jaxmu.method import Method
from jaxmu.methods import (
  baselines,
  bt,
  cfk,
  cfw,
  ct,
  euk,
  fcs,
  ff,
  ft,
  ga,
  iu,
  kde,
  msg,
  neggrad_plus,
  prmq,
  rni,
  salun,
  scrub,
  srl,
)

METHODS: dict[str, Method] = {
  'bt': bt.METHOD,
  'cfk': cfk.METHOD,
  'cfw': cfw.METHOD,
  'ct': ct.METHOD,
  'euk': euk.METHOD,
  'fcs': fcs.METHOD,
  'ff': ff.METHOD,
  'ft': ft.METHOD,
  'ga': ga.METHOD,
  'iu': iu.METHOD,
  'kde': kde.METHOD,
  'msg': msg.METHOD,
  'neggrad_plus': neggrad_plus.METHOD,
  'original': baselines.ORIGINAL,
  'prmq': prmq.METHOD,
  'retrain': baselines.RETRAIN,
  'rni': rni.METHOD,
  'salun': salun.METHOD,
  'scrub': scrub.METHOD,
  'srl': srl.METHOD,
}

# What unlearning is measured with and against; not unlearning methods.
BASELINES = ('original', 'retrain')


def get(name: str) -> Method:
  """Look up a method by the paper's name.

  Raises:
    ValueError: no such method; the message lists those there are.
  """
  if name not in METHODS:
    raise ValueError(
      f'unknown method {name!r}; choose one of {", ".join(METHODS)}'
    )
  return METHODS[name]


def hparams_for(name: str, fidelity: str = 'reference') -> dict[str, Any]:
  """Return the default hyper-parameters of a method as plain values.

  Args:
    name: of the method.
    fidelity: 'reference' repeats the benchmark's code, quirks included, which
      published numbers come from; 'paper' sets the options in which it departs
      from the cited work to what that work says.

  Raises:
    ValueError: unknown method or fidelity.
  """
  method = get(name)
  if fidelity not in ('reference', 'paper'):
    raise ValueError(f"fidelity = {fidelity!r}; choose 'reference' or 'paper'")
  changes = method.card.paper if fidelity == 'paper' else {}
  return {**hp.defaults(method.Hparams), **changes}
