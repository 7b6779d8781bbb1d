"""Generate the table of methods in docs/methods.md from their cards.

python -m tests.methods.table renews the page.
"""

import pathlib

from jaxmu import hparams as hp
from jaxmu import method as method_lib
from jaxmu.methods import METHODS

SIZES = method_lib.Sizes(retain=45_000, forget=5_000, val=7_500, classes=10)
HEAD = (
  '| name | label | method | reads | cost | options |\n'
  '|---|---|---|---|---|---|\n'
)
PAGE = pathlib.Path(__file__).parents[2] / 'docs' / 'methods.md'


def markdown() -> str:
  """Return the table, one row per method."""
  return HEAD + ''.join(_row(name) for name in METHODS)


def renew() -> None:
  """Write the table into the page, in place of the old one."""
  text = PAGE.read_text()
  begin = text.index('| name |')
  end = text.index('\n\n', begin) + 1
  PAGE.write_text(text[:begin] + markdown() + text[end:])


def _row(name: str) -> str:
  method = METHODS[name]
  card = method.card
  cost = card.cost(hp.defaults(method.Hparams), SIZES)
  share = cost / (SIZES.retain + SIZES.forget)
  reads = ', '.join(card.reads)
  cells = name, card.label, card.title, reads, f'{share:.3g}', _options(name)
  return f'| {" | ".join(cells)} |\n'


def _options(name: str) -> str:
  method = METHODS[name]
  found = []
  for field in hp.declared(method.Hparams):
    valid = hp.meta(field)['valid']
    if isinstance(valid, tuple):
      paper = method.card.paper.get(field.name)
      values = [f'**{v}**' if v == paper else str(v) for v in valid]
      found.append(f'`{field.name}` {" / ".join(values)}')
  return '; '.join(found)


if __name__ == '__main__':
  renew()
