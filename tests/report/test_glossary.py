"""Every metric has a title, a sentence and a direction."""

import pytest

from jaxmu.report import glossary, tables
from tests.report import results

# What the benchmark, the issue of attacks and the default run speak of.
NAMES = (
  *('ra', 'fa', 'va', 'ta', 'rr', 'fr', 'tr', 'ret_dev', 'ret_dev_means'),
  *('tow', 'sape', 'indisc_val', 'indisc_test', 'mia_val', 'mia_test'),
  *('population_auc', 'rte', 'rte_cold', 'rte_counted', 'cost'),
  *('ulira_auc', 'ulira_balanced_accuracy', 'ulira_best_balanced_accuracy'),
  *('ulira_tpr_0.1', 'ulira_tpr_0.01', 'ulira_tpr_0.001', 'ulira_tpr@0.01'),
  *('excess_ulira_auc', 'excess_ulira_tpr_0.01', 'excess_population_auc'),
  *('klom_mean', 'klom_quantile_0.95', 'per_example_quantile_0.99'),
  *('rmia_auc', 'lira_online_auc', 'lira_offline_tpr_0.01', 'kde_auc'),
)


def test_every_name_in_use_has_an_entry():
  used = {
    *NAMES,
    *tables.COLUMNS,
    *(key for key, _ in tables.OVERVIEW),
    *(row.metric for row in results.rows()),
  }
  assert glossary.missing(used) == []


def test_names_without_an_entry_are_found():
  names = ['fa', 'nonsense', 'excess_nonsense', 'ulira_nonsense', 'tpr_0.1']
  assert glossary.missing(names) == [
    'excess_nonsense',
    'nonsense',
    'tpr_0.1',
    'ulira_nonsense',
  ]
  assert glossary.describe('nonsense').title == 'nonsense'


@pytest.mark.parametrize('name', [*NAMES, *glossary.METRICS, *glossary.SPECIAL])
def test_entries_are_complete(name):
  entry = glossary.describe(name)
  assert entry.name == name
  assert entry.title and entry.source
  assert entry.better in glossary.DIRECTIONS
  assert entry.sentence.endswith('.') and '{' not in entry.sentence
  assert entry.sentence[0].isupper()


def test_attacks_and_statistics_compose():
  for attack in glossary.ATTACKS:
    assert not glossary.missing(
      f'{attack}_{statistic}' for statistic in glossary.STATISTICS
    )
  entry = glossary.describe('tpr_0.01', attack='rmia')
  assert entry == glossary.describe('rmia_tpr_0.01')
  assert entry.title == 'RMIA: TPR at 1% FPR'


def test_the_longest_attack_name_wins():
  title = glossary.describe('ulira_reference_auc').title
  assert title == 'U-LiRA as released with the benchmark: AUC'


def test_an_excess_is_best_at_zero():
  assert glossary.describe('ulira_auc').better == 'half'
  assert glossary.describe('excess_ulira_auc').better == 'zero'


def test_directions_have_symbols():
  assert glossary.SYMBOLS.keys() == glossary.DIRECTIONS.keys()
