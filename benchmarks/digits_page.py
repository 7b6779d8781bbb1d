"""Put the table of a finished `configs/benchmark.py` into its page.

    python -m jaxmu.main --config=configs/benchmark.py
    python benchmarks/digits_page.py [--workdir=workdir/benchmark_digits]

Replaces the text between the markers of `docs/benchmark_digits.md` with the
table, the command, the versions and the machine. The other sentences are
written by hand: check them when the numbers change.
"""

import argparse
import datetime
import json
import pathlib
import textwrap

PAGE = pathlib.Path(__file__).parent.parent / 'docs' / 'benchmark_digits.md'
BEGIN, END = '<!-- begin of the table -->', '<!-- end of the table -->'
PACKAGES = ('python', 'jax', 'flax', 'numpy', 'scipy')


def main() -> None:
  """Read a work directory and rewrite the page."""
  parser = argparse.ArgumentParser()
  parser.add_argument('--workdir', default='workdir/benchmark_digits')
  folder = pathlib.Path(parser.parse_args().workdir)
  table = (folder / 'paper_table.md').read_text()
  results = folder / 'results.json'
  day = datetime.date.fromtimestamp(results.stat().st_mtime)
  made = provenance(json.loads(results.read_text()), day)
  PAGE.write_text(fill(PAGE.read_text(), f'{table}\n{made}'))


def fill(page: str, content: str) -> str:
  """Replace the text between the markers of a page."""
  before, rest = page.split(BEGIN)
  _, after = rest.split(END)
  return f'{before}{BEGIN}\n\n{content}\n{END}{after}'


def provenance(results: dict, day: datetime.date) -> str:
  """Return a paragraph with the versions, machine and date of the results."""
  facts = results['provenance']
  versions = ', '.join(f'{name} {facts["versions"][name]}' for name in PACKAGES)
  machine = facts['hardware']
  text = (
    f'Made on {day} with {versions}; {machine["processor"]}, '
    f'{machine["cores"]} cores, {machine["devices"]} devices of kind '
    f'{machine["device"]!r}; data {facts["data"]["fingerprint"][:16]}.'
  )
  return textwrap.fill(text, 80) + '\n'


if __name__ == '__main__':
  main()
