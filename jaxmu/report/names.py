"""How methods are written in tables and plots."""

from collections.abc import Iterable

REFERENCE = 'retrain'
ORIGINAL = 'original'

_LABELS = {
  'original': 'Original',
  'retrain': 'Retrained',
  'ft': 'FT',
  'ga': 'GA',
  'neggrad_plus': 'NG+',
  'srl': 'SRL',
  'salun': 'SalUN',
  'scrub': 'SCRUB',
  'bt': 'BT',
  'ff': 'FF',
  'iu': 'IU',
  'cfk': 'CF-k',
  'euk': 'EU-k',
  'fcs': 'FCS',
  'msg': 'MSG',
  'cfw': 'CFW',
  'prmq': 'PRMQ',
  'ct': 'CT',
  'kde': 'KDE',
  'rni': 'RNI',
}


def label(method: str) -> str:
  """Return a method as tables show it; unknown names stay as they are."""
  return _LABELS.get(method, method)


def ordered(
  methods: Iterable[str],
  reference: str = REFERENCE,
  original: str = ORIGINAL,
) -> list[str]:
  """Return distinct methods: the reference, the original, then as given."""
  distinct = list(dict.fromkeys(methods))
  first = [name for name in (reference, original) if name in distinct]
  return first + [name for name in distinct if name not in first]
