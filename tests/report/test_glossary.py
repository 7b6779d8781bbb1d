"""Every metric has a title, a sentence and a direction."""

from jaxmu import metrics
from jaxmu.attacks import registry
from jaxmu.report import glossary, html, tables
from jaxmu.terms import DIRECTIONS, Term
from tests.report import results

# What the benchmark, the issue of attacks and the default run speak of.
NAMES = (
  *('ra', 'fa', 'va', 'ta', 'rr', 'fr', 'tr', 'ret_dev', 'ret_dev_means'),
  *('tow', 'indisc_val', 'indisc_test', 'mia_val', 'mia_test'),
  *('population_auc', 'rte', 'rte_cold', 'rte_counted', 'cost'),
  *('ulira_auc', 'ulira_balanced_accuracy', 'ulira_best_balanced_accuracy'),
  *('ulira_tpr_0.1', 'ulira_tpr_0.01', 'ulira_tpr_0.001'),
  *('excess_ulira_auc', 'excess_ulira_tpr_0.01', 'excess_population_auc'),
  *('klom_mean', 'klom_quantile_0.95', 'per_example_quantile_0.99'),
  *('rmia_auc', 'lira_online_auc', 'lira_offline_tpr_0.01', 'kde_auc'),
)


def test_every_name_in_use_has_an_entry():
  used = {
    *NAMES,
    *tables.PAPER_COLUMNS,
    *(key for key, _ in html.OVERVIEW),
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


def _every_name():
  cards = [metric.card for metric in metrics.METRICS.values()]
  names = [n for card in (*cards, *metrics.MEASURED) for n in card.terms]
  for attack, entry in registry.ATTACKS.items():
    terms = entry.card.terms
    names += [f'{attack}_{key.replace("{}", "0.01")}' for key in terms]
  return [*NAMES, *names]


def test_entries_are_complete():
  wrong = []
  for name in _every_name():
    entry = glossary.describe(name)
    if not (
      entry.title
      and entry.source
      and entry.sentence.endswith('.')
      and '{' not in entry.sentence
      and entry.sentence[0].isupper()
      and entry.sentence != glossary.describe('').sentence
    ):
      wrong.append((name, entry))
  assert not wrong


def test_no_two_cards_describe_one_name():
  cards = [metric.card for metric in metrics.METRICS.values()]
  names = [n for card in (*cards, *metrics.MEASURED) for n in card.terms]
  assert len(names) == len(set(names))


def test_attacks_and_statistics_compose():
  entry = glossary.describe('rmia_tpr_0.01')
  assert entry.title == 'RMIA: TPR at 1% FPR'
  assert 'RMIA' in entry.sentence and entry.better == 'lower'


def test_the_attack_of_a_number():
  assert glossary.attack_of('excess_loss_auc') == 'loss'
  assert glossary.attack_of('ulira_reference_auc') == 'ulira_reference'
  # Numbers of metrics, although an attack has that name too.
  assert glossary.attack_of('population_auc') == ''
  assert glossary.attack_of('population_mia') == 'population'
  assert glossary.attack_of('fa') == glossary.attack_of('nonsense_auc') == ''


def test_terms_of_plug_ins_are_added(monkeypatch):
  monkeypatch.setattr(glossary, '_plug_ins', {})
  assert glossary.missing(['mine']) == ['mine']
  glossary.add({'mine': Term('Mine', 'A number of my own.')})
  assert glossary.describe('mine').title == 'Mine'
  assert glossary.describe('rank_mine').title == 'Mine: mean rank'


def test_the_longest_attack_name_wins():
  title = glossary.describe('ulira_reference_member_rate').title
  assert title.startswith('U-LiRA as released with the benchmark: ')


def test_an_excess_is_best_at_zero():
  assert glossary.describe('ulira_auc').better == 'half'
  assert glossary.describe('excess_ulira_auc').better == 'zero'


def test_directions_have_symbols():
  assert glossary.SYMBOLS.keys() == glossary.DIRECTIONS.keys()
  assert set(DIRECTIONS) == set(glossary.DIRECTIONS)
