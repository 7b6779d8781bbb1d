"""The unlearning methods, one per file, and the registry of all of them."""

import contextlib
from collections.abc import Iterator
from typing import Any

from jaxmu import hparams as hp
from jaxmu import method as method_lib
from jaxmu import plugins
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

_BUILTIN: dict[str, Method] = {
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

# The baselines that unlearning is compared with; not unlearning methods.
BASELINES = ('original', 'retrain')


_plugins: dict[str, Method] = {}  # plug-ins that were resolved, by name


def _check(value: Any) -> Method:
  """Return a plug-in's `METHOD`; raise a ValueError that says what it lacks."""
  method = method_lib.as_method(value)
  builtin = _BUILTIN.get(method.name)
  if builtin is not None and builtin is not method:
    raise ValueError(
      f'name = {method.name!r} is the name of a built-in method, whose results '
      'it would replace; choose another name'
    )
  if builtin is None:
    _plugins[method.name] = method
  return method


METHODS = plugins.Registry(
  'method', _BUILTIN, check=_check, title=lambda method: method.card.title
)


def known_methods() -> dict[str, Method]:
  """Return built-in methods and plug-ins that were resolved, by name."""
  return {**METHODS, **_plugins}


def get(spec: Any) -> Method:
  """Return a method, built-in or a plug-in.

  Args:
    spec: name of a built-in method or of an installed plug-in, import path
      (`my_package.my_method`), file (`my_method.py`), module or `Method`; see
      `jaxmu.plugins`.

  Raises:
    ValueError: there is no such method, or it is incomplete; the message names
      the nearest method or what is missing.

  Example:
    >>> get('scrub').card.citation
    'Kurmanji et al. 2023, arXiv 2302.09880'
  """
  return METHODS.resolve(spec)


@contextlib.contextmanager
def naming(method: Method) -> Iterator[None]:
  """Say which plug-in raised what, and where, in one line.

  Raises:
    ValueError: a plug-in raised something; its own error is the cause. What
      built-in methods raise, and a ValueError, passes through.
  """
  try:
    yield
  except ValueError:
    raise
  except Exception as error:
    if method.name in METHODS:
      raise
    raise ValueError(
      f'method {method.name!r} raises {plugins.reason(error)}; correct it, and '
      'see jaxmu.testing.check_method'
    ) from error


def hparams_for(spec: Any, fidelity: str = 'reference') -> dict[str, Any]:
  """Return the default hyper-parameters of a method as plain values.

  Args:
    spec: a method, as for `get`.
    fidelity: 'reference' repeats the benchmark's code, quirks included, because
      published numbers come from it; 'paper' follows the cited work in the
      options where the benchmark's code departs from it.

  Raises:
    ValueError: unknown method or fidelity.

  Example:
    >>> hparams_for('scrub', 'paper')['rewind_zero']
    'original'
  """
  method = get(spec)
  if fidelity not in ('reference', 'paper'):
    raise ValueError(f"fidelity = {fidelity!r}; choose 'reference' or 'paper'")
  changes = method.card.paper if fidelity == 'paper' else {}
  return {**hp.defaults(method.Hparams), **changes}
