"""The page with the benchmark on digits, and how its table is written."""

import datetime

from benchmarks import digits_page
from jaxmu import methods
from jaxmu.report import results, tables


def test_the_page_has_a_row_for_every_benchmark_method_and_all_columns():
  lines = digits_page.PAGE.read_text().splitlines()
  rows = [[cell.strip() for cell in line.split('|')[1:-1]] for line in lines]
  rows = [row for row in rows if len(row) == 1 + len(tables.PAPER_COLUMNS)]
  labels = {row[0].split(' (')[0] for row in rows}
  # 18 methods and two baselines; others may have been added since it was run.
  known = {results.label(method) for method in methods.METHODS}
  assert len(known & labels) >= 20


def test_filling_replaces_the_table_and_nothing_else():
  page = f'above\n{digits_page.BEGIN}old{digits_page.END}\nbelow\n'
  once = digits_page.fill(page, 'new\n')
  assert once.startswith('above\n') and once.endswith('\nbelow\n')
  assert 'new' in once and 'old' not in once
  assert digits_page.fill(once, 'new\n') == once


def test_provenance_names_versions_and_machine():
  versions = dict.fromkeys(digits_page.PACKAGES, '1.2')
  hardware = dict(processor='Chip', cores=2, devices=2, device='cpu')
  data = {'fingerprint': 'f' * 64}
  facts = dict(versions=versions, hardware=hardware, data=data)
  text = digits_page.provenance(
    {'provenance': facts}, datetime.date(2026, 1, 2)
  )
  assert '2026-01-02' in text and 'jax 1.2' in text and 'Chip, 2 cores' in text
