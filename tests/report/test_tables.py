"""Tables on the terminal, and the table of the benchmark."""

import io
import math

import numpy as np
import pytest
import rich.console

from jaxmu.report import glossary, tables
from jaxmu.report import results as results_lib
from tests.report import results


@pytest.mark.parametrize('width', [80, 120])
def test_fits_the_width_and_shows_every_row(width):
  rows = results.rows()
  lines = tables.table_text(rows, width=width).splitlines()
  assert max(map(len, lines)) <= width
  for row in rows:
    if not math.isnan(row.low):
      unit = glossary.describe(row.metric).unit
      interval = results_lib.format_interval(row.low, row.high, unit)
      assert any(interval in line for line in lines), row


def test_a_line_has_value_retrained_gap_interval_and_count():
  numbers = 0.9, 0.86, 0.94, 0.87, 0.03, 16, 0.01, 0.05
  rows = [results_lib.Row('ft', 'fa', *numbers)]
  text = tables.table_text(rows)
  line = next(line for line in text.splitlines() if line.startswith('FT'))
  assert line.split() == [
    'FT', '0.9000', '0.8700', '+0.0300*', '[0.8600,', '0.9400]', '16',
  ]  # fmt: skip
  assert 'closer to retrained is better' in text
  assert 'difference from the retrained models excludes 0' in text


def test_no_star_where_the_interval_of_the_difference_holds_0():
  # The interval of the number alone says nothing about that of the others.
  numbers = 0.9, 0.88, 0.92, 0.87, 0.03, 16
  for ends in ((), (-0.01, 0.07)):
    row = results_lib.Row('ft', 'fa', *numbers, *ends)
    assert '*' not in tables.table_text([row])


def test_the_reference_leads_every_block():
  lines = tables.table_text(results.rows()).splitlines()
  heads = [i for i, line in enumerate(lines) if '·' in line]
  assert len(heads) == 12
  for i in heads:
    assert lines[i + 1].startswith('Retrained (reference)')


def test_failed_members_and_missing_numbers_are_flagged():
  rows = [
    results_lib.Row('ga', 'fa', math.nan, retrained=0.8),
    results_lib.Row('ft', 'fa', 0.8),
  ]
  text = tables.table_text(rows, failed={'ga': (2, 16), 'ft': (0, 16)})
  assert 'GA !2/16' in text
  assert '! GA: 2 of 16 models failed' in text
  assert '! FT' not in text
  line = next(line for line in text.splitlines() if line.startswith('GA'))
  assert line.split()[2:] == ['n/a', '0.8000', 'n/a']


def test_the_headline_keeps_what_to_read_first():
  kept = {row.metric for row in tables.headline(results.rows())}
  assert 'ulira_auc' in kept and 'va' not in kept
  other = [results_lib.Row('ft', 'mine', 0.5)]
  assert tables.headline(other) == other


def test_names_are_shown_as_they_are_not_as_markup():
  text = tables.table_text([results_lib.Row('[red]mine[/red]', 'fa', 0.5)])
  assert '[red]mine[/red]' in text


def test_one_method_and_twenty_methods():
  assert 'FT' in tables.table_text(results.rows(('ft',)))
  methods = [f'method_{i}' for i in range(20)]
  text = tables.table_text(results.rows(('original', 'retrain', *methods)))
  assert all(method in text for method in methods)


def test_attacks_on_stored_scores_have_one_row_each():
  rows = [
    results_lib.Row('unlearned', 'ulira_auc', 0.6, 0.5, 0.7, 0.5, 0.1, 8),
    results_lib.Row('unlearned', 'excess_ulira_auc', 0.1, -0.1, 0.3, 0, 0.1, 8),
    results_lib.Row('unlearned', 'ulira_tpr_0.1', 0.3, 0.2, 0.4, n=8),
    results_lib.Row('retrain', 'ulira_auc', 0.5, 0.4, 0.6, n=8),
    results_lib.Row('unlearned', 'x_auc', 1),
    results_lib.Row('unlearned', 'kde_auc', 0.7, 0.65, 0.75, n=8),
  ]
  lines = tables.attacks_text(rows).splitlines()
  (line,) = [line for line in lines if line.startswith('U-LiRA')]
  assert line.split() == [
    'U-LiRA', 'AUC', '0.6000', '0.5000', '+0.1000', '[-0.1000,', '0.3000]',
  ]  # fmt: skip
  (line,) = [line for line in lines if line.startswith('Kernel')]
  assert line.split()[-4:] == ['n/a', 'n/a', '[0.6500,', '0.7500]']
  assert max(map(len, lines)) <= 100


def test_numbers_that_are_not_available_say_why_below():
  rows = [results_lib.Row('ft', 'fr', math.nan)]
  why = {('ft', 'fr'): 'the reference is 0', ('ft', 'rr'): 'not shown'}
  text = ' '.join(tables.table_text(rows, missing=why).split())
  assert 'Not available for FT: Forget retention (FR) (the reference' in text
  assert 'not shown' not in text


def test_show_colours_terminals_only():
  shown = {}
  for tty in (True, False):
    file = io.StringIO()
    console = rich.console.Console(
      file=file,
      force_terminal=tty,
      color_system='standard' if tty else None,
      width=100,
    )
    tables.show_table(results.rows(), console=console)
    shown[tty] = file.getvalue()
  assert '\x1b[' in shown[True]
  assert '\x1b[' not in shown[False]
  assert 'Original' in shown[False]


def test_show_writes_ascii_where_nothing_else_can_be_written():
  buffer = io.BytesIO()
  console = rich.console.Console(
    file=io.TextIOWrapper(buffer, encoding='ascii', write_through=True),
    width=100,
  )
  tables.show_table(results.rows(), console=console)
  assert b'Original' in buffer.getvalue()


def test_numbers_read_well():
  assert results_lib.format_value(math.nan) == 'n/a'
  assert results_lib.format_value(-math.inf) == '-∞'
  assert results_lib.format_value(0.87341) == '0.8734'
  assert results_lib.format_value(1e-6) == '1.0e-06'
  assert results_lib.format_value(390.3, 'times') == '390×'
  assert results_lib.format_value(7.378, 'times') == '7.38×'
  assert results_lib.format_value(1.234e8, 'count') == '123M'
  assert results_lib.format_value(1234, 'count') == '1,234'
  assert results_lib.format_gap(0.25) == '+0.2500'
  assert results_lib.format_gap(-0.25) == '-0.2500'
  assert results_lib.format_interval(math.nan, math.nan) == ''
  assert results_lib.format_duration(59.4) == '59 s'
  assert results_lib.format_duration(200) == '3 min 20 s'
  assert results_lib.format_duration(7500) == '2 h 05 min'


def _per_seed():
  rng = np.random.default_rng(0)
  return {
    method: {key: rng.uniform(0.8, 1, 10) for key in tables.PAPER_COLUMNS}
    for method in ('ft', 'retrain', 'ga')
  }


def _results(per_seed, **options):
  return tables.PaperTable(per_seed, **options)


def test_paper_table_gives_mean_and_sample_deviation():
  per_seed = _per_seed()
  text = tables.paper_text(_results(per_seed), width=200)
  fa = per_seed['ft']['fa']
  mean = sum(fa) / 10
  deviation = math.sqrt(sum((x - mean) ** 2 for x in fa) / 9)
  line = next(line for line in text.splitlines() if line.startswith('FT'))
  assert line.split()[4:7] == [f'{mean:.3f}', '±', f'{deviation:.3f}']
  assert text.splitlines()[1].startswith('Retrained')


def test_paper_table_shows_the_speed_up_of_the_report():
  seconds = np.array([0.4, 0.36, 0.37, 0.9])
  table = _results({'ft': {'rte': 0.8 / seconds}})
  text = tables.paper_text(table, width=200)
  assert f'{0.8 / np.median(seconds):.3f} ± ' in text


def test_paper_table_says_what_its_values_are_of():
  one, several = _results(_per_seed()), _results({}, units='pairs of splits')
  for table, units in ((one, 'initialisations'), (several, 'pairs of splits')):
    note = ' '.join(tables.paper_markdown(table).split())
    assert f'standard deviation over {units}, each paired with' in note


def test_paper_table_splits_where_it_is_too_wide():
  text = tables.paper_text(_results(_per_seed()), width=80)
  assert max(map(len, text.splitlines())) <= 80
  words = text.split()
  assert all(title in words for title in tables.PAPER_COLUMNS.values())
  assert words.count('FT') > 1


def test_paper_table_counts_values_that_are_not_finite():
  per_seed = _per_seed()
  per_seed['ga']['mia_test'][:3] = np.nan
  per_seed['ga']['rte'][:] = np.nan
  del per_seed['ft']['rte']
  lines = tables.paper_markdown(_results(per_seed)).splitlines()
  lines = [line for line in lines if line.startswith('|')]
  cells = {line.split('|')[1].strip(): line.split('|') for line in lines}
  assert cells['GA'][11].strip() == 'n/a'
  assert cells['FT'][11].strip() == 'n/a'
  assert cells['GA'][10].strip().endswith('[7/10]')
  assert len({len(line.split('|')) for line in lines}) == 1


def test_paper_table_with_one_seed_has_no_deviation():
  text = tables.paper_text(_results({'ft': {'fa': 0.5}}), width=200)
  line = next(line for line in text.splitlines() if line.startswith('FT'))
  assert '0.500' in line
  assert '±' not in line


def test_paper_table_says_which_direction_is_better():
  head = tables.paper_markdown(_results(_per_seed())).splitlines()[0]
  titles = [cell.strip() for cell in head.split('|')[2:-1]]
  assert titles == [
    'RA →R', 'FA →R', 'TA →R', 'RR →1', 'FR →1', 'TR →1', 'RetDev ↓',
    'Indisc ↑', 'T-MIA →R', 'RTE ↑',
  ]  # fmt: skip


def test_paper_table_shows_the_noise_floor_below_the_reference():
  floor = {'ret_dev': [0.1, 0.3]}
  table = _results(_per_seed(), floor=floor)
  lines = tables.paper_text(table, width=200).splitlines()
  assert lines[1].startswith('Retrained ')
  assert lines[2].split()[:3] == ['Retrained,', 'next', 'seed']
  assert '0.200 ± 0.141' in lines[2]
  assert 'n/a' not in lines[2]


def test_paper_table_in_ascii_where_nothing_else_can_be_written():
  buffer = io.BytesIO()
  file = io.TextIOWrapper(buffer, encoding='ascii', write_through=True)
  console = rich.console.Console(file=file)
  tables.show_paper_table(_results(_per_seed()), console=console)
  assert b'RetDev v' in buffer.getvalue()


def test_paper_table_shows_failed_members():
  failed = {'ga': (2, 6), 'ft': (0, 6)}
  table = _results(_per_seed(), failed=failed)
  for text in (
    tables.paper_text(table),
    tables.paper_markdown(table),
  ):
    assert 'GA (2 of 6 failed)' in text
    assert 'FT (' not in text
    assert 'not finite' in text
