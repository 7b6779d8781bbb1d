"""Findings follow the numbers in every case."""

import dataclasses
import math

from jaxmu.report import results as results_lib
from jaxmu.report import summary
from tests.report import results


def _text(rows, **kwargs):
  return '\n'.join(summary.summarise(rows, **kwargs))


def _change(rows, method, metric, **fields):
  return [
    dataclasses.replace(row, **fields)
    if (row.method, row.metric) == (method, metric)
    else row
    for row in rows
  ]


def test_a_sound_attack_and_a_leaking_original():
  text = _text(results.rows())
  assert 'at chance with AUC 0.501 [0.491, 0.511]' in text
  assert 'AUC 0.643 [0.633, 0.653], more than on retrained models' in text
  assert 'it detects 5.3% of the forgotten examples' in text
  assert 'so it understates the leak' in text


def test_an_attack_that_finds_what_is_not_there():
  rows = _change(
    results.rows(), 'retrain', 'ulira_auc', value=0.56, low=0.55, high=0.57
  )
  text = _text(rows)
  assert 'with caution' in text and 'excludes 0.5' in text
  assert 'at chance with' not in text


def test_an_original_that_does_not_leak():
  rows = _change(
    results.rows(), 'original', 'ulira_auc', value=0.51, low=0.49, high=0.53
  )
  rows = _change(
    rows, 'original', 'excess_ulira_auc', value=0.01, low=-0.01, high=0.03
  )
  assert 'shows no leak' in _text(rows)
  # The paired difference decides, not whether two intervals overlap.
  rows = _change(rows, 'original', 'ulira_auc', value=0.6, low=0.59, high=0.61)
  assert 'shows no leak' in _text(rows)


def test_unlearners_are_sorted_by_their_excess():
  rows = results.rows(('retrain', 'ft', 'ga', 'msg'))
  rows = _change(
    rows, 'ga', 'excess_ulira_auc', value=0.005, low=-0.01, high=0.02
  )
  rows = _change(
    rows, 'msg', 'excess_ulira_auc', value=-0.1, low=-0.2, high=-0.05
  )
  sentences = summary.summarise(rows)
  leaks = next(s for s in sentences if 'still leaks' in s)
  same = next(s for s in sentences if 'cannot be told from retraining' in s)
  below = next(s for s in sentences if 'below the retrained' in s)
  assert leaks.startswith('1 of 3 methods') and 'FT (+0.050)' in leaks
  assert 'GA' in same and 'remains possible' in same
  assert 'MSG (-0.100)' in below


def test_a_broken_model_is_not_praised_for_hiding():
  rows = _change(
    results.rows(), 'ga', 'excess_ulira_auc', value=0, low=-0.01, high=0.01
  )
  assert 'hard to attack' not in _text(rows)
  rows = _change(rows, 'ga', 'ret_dev', value=1.7)
  assert 'the accuracies of GA are farther' in _text(rows)


def test_the_population_attack_is_judged_by_its_excess_over_retrained():
  rows = _change(results.rows(), 'original', 'population_auc', gap=0.14)
  assert 'so the two agree' in _text(rows)
  rows = _change(rows, 'original', 'population_auc', gap=0.2)
  assert 'so it detects more in this run' in _text(rows)


def test_accuracy_is_compared_with_doing_nothing():
  rows = _change(results.rows(), 'ga', 'ret_dev', value=0.5)
  text = _text(rows)
  assert 'FT is closest to retraining' in text
  assert 'GA is farthest' in text
  assert 'the original models have 0.146, closer to retraining than GA' in text


def test_validation_leakage_is_flagged():
  assert 'Validation accuracy exceeds' not in _text(results.rows())
  rows = _change(results.rows(), 'msg', 'va', value=0.95, low=0.94, high=0.96)
  assert 'by over 0.02, for MSG:' in _text(rows)


def test_validation_images_that_are_easier_for_all_are_no_leakage():
  rows = results.rows()
  for method in results.METHODS:
    rows = _change(rows, method, 'va', value=0.95, low=0.94, high=0.96)
  assert 'Validation accuracy exceeds' not in _text(rows)


def test_a_paired_excess_shows_a_leak_that_overlapping_intervals_hide():
  rows = _change(
    results.rows(), 'original', 'ulira_auc', value=0.53, low=0.505, high=0.555
  )
  assert 'there is something to unlearn' in _text(rows)


def test_slow_methods_and_failures_are_named():
  rows = _change(results.rows(), 'ct', 'rte', value=0.5)
  text = _text(rows, failed={'ga': (2, 16), 'ft': (0, 16)})
  assert 'slower than retraining: CT' in text
  assert 'GA (2 of 16)' in text and 'FT (0' not in text


def test_missing_numbers_are_passed_over():
  assert summary.summarise([]) == []
  assert summary.summarise([results_lib.Row('ft', 'fa', math.nan)]) == []
  nothing = [
    dataclasses.replace(row, value=math.nan, low=math.nan, high=math.nan)
    for row in results.rows()
  ]
  assert summary.summarise(nothing) == []
  no_intervals = [
    dataclasses.replace(row, low=math.nan, high=math.nan)
    for row in results.rows()
  ]
  assert 'without an interval' in _text(no_intervals)
  assert 'nan' not in _text(no_intervals)


def test_one_method():
  text = _text(results.rows(('original', 'retrain', 'ft')))
  assert 'The only method still leaks' in text
  assert 'farthest' not in text


def _attack(name, value, half, excess=None, statistic='auc'):
  metric = f'{name}_{statistic}'
  rows = [_row('unlearned', metric, value, half)]
  if excess is not None:
    rows.append(_row('unlearned', f'excess_{metric}', excess, half))
  return rows


def _row(method, metric, value, half):
  return results_lib.Row(method, metric, value, value - half, value + half, n=8)


def test_attacks_are_judged_by_question_and_by_their_excess():
  rows = [
    *_attack('rmia', 0.9, 0.05, excess=0.01),
    *_attack('kde', 0.6, 0.05, excess=0.10),
    *_attack('loss', 0.6, 0.05, excess=0.06),
    *_attack('lira_forget', 0.58, 0.02),
  ]
  first, second = summary.summarise(rows)
  # RMIA has the largest AUC and retrained models have it as well. The p-value
  # of the loss attack is 0.024, and three tests are too many for that.
  assert '1 of 3 attacks finds more than on retrained models: ' in first
  assert ': Kernel density attack (excess +0.100 [0.050, 0.150])' in first
  assert "Holm's correction for 3 tests" in first
  assert second.startswith('Unlearned against retrained models: Unlearned')
  assert 'LiRA-Forget exceeds chance (AUC 0.580 [0.560, 0.600])' in second


def test_attacks_that_find_less_are_not_counted_with_those_that_find_more():
  rows = [
    *_attack('rmia', 0.6, 0.02, excess=0.1),
    *_attack('kde', 0.6, 0.02, excess=0.2),
    *_attack('loss', 0.4, 0.02, excess=-0.1),
    *_attack('ulira', 0.5, 0.02, excess=0.0),
  ]
  first, *_ = summary.summarise(rows)
  assert '2 of 4 attacks find more than on retrained models, most' in first
  assert 'strongly Kernel density attack (excess +0.200' in first
  assert 'and 1 of 4 attacks finds less than on retrained models: Loss' in first
  (none,) = summary.verdict(_attack('rmia', 0.6, 0.02, excess=0.0))
  assert 'RMIA does not differ from retrained models' in none


def test_the_verdict_comes_first_and_counts_the_tests_of_a_question_alone():
  """A p-value of 0.03 passes alone, not among the tests of its question."""
  many = [x for n in ('rmia', 'kde') for x in _attack(n, 0.5, 0.05, excess=0.0)]
  other = _attack('lira_forget', 0.55, 0.043)
  rows = [*results.rows(), *many, *other]
  first, second, *_ = summary.summarise(rows)
  assert first.startswith('Forgotten against never-seen examples: ')
  assert second.startswith('Unlearned against retrained models: ')
  assert 'LiRA-Forget exceeds chance' in second and 'Holm' not in second


def test_attacks_without_retrained_models_are_compared_with_chance():
  first, *_ = summary.summarise(_attack('rmia', 0.6, 0.02))
  assert 'RMIA exceeds chance' in first
  first, *_ = summary.summarise(_attack('rmia', 0.51, 0.02))
  assert 'RMIA does not differ from chance' in first


def test_the_share_of_exposed_points_stands_beside_that_of_retrained_models():
  rows = [
    results_lib.Row('unlearned', 'per_example_exposed', 0.4, retrained=0.37)
  ]
  (sentence,) = summary.summarise(rows)
  assert '40.0%' in sentence and 'of retrained models, 37.0%' in sentence


def test_reasons_are_given_once_for_all_their_numbers():
  missing = {
    (method, metric): 'the accuracy is 0'
    for method in ('ft', 'ga')
    for metric in ('fr', 'ret_dev')
  }
  (sentence,) = summary.explain_missing(missing)
  assert sentence.startswith('Not available for FT; GA: Forget retention')
  assert sentence.endswith('(the accuracy is 0).')
  many = {(f'm{i}', 'fr'): 'x' for i in range(20)}
  assert 'and 15 more' in summary.explain_missing(many)[0]
