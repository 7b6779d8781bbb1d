"""Every metric satisfies the contract for all values that models take."""

import dataclasses
import pathlib
import textwrap

import numpy as np
import pytest

from jaxmu import metrics, plugins, testing
from jaxmu.metrics import accuracies, interface
from jaxmu.terms import Term
from jaxmu.testing import metrics as contract
from jaxmu.testing.metrics import simulated, with_retrained

P = contract.MODELS


every_metric = pytest.mark.parametrize(
  'metric', metrics.METRICS.values(), ids=list(metrics.METRICS)
)


@every_metric
def test_numbers_are_those_of_the_card(metric):
  given = interface.run(metric, with_retrained(simulated()))
  assert list(given) == list(metric.card.terms)
  for value in given.values():
    if isinstance(value, np.ndarray):
      assert value.shape == (P,) and value.dtype == np.float64


@every_metric
def test_every_metric_keeps_the_contract(metric):
  testing.check_metric(metric)


def _metric(compute, **changes):
  """A metric named x with one number x, its card changed."""
  card = interface.Card('t', {'x': Term('X', 'An x.')})
  return interface.Metric('x', compute, dataclasses.replace(card, **changes))


def _stateful():
  calls = iter(range(1000))
  return lambda p: {'x': np.full(P, float(next(calls)))}


def _writes(population):
  population.correct[:] = True
  return {'x': np.zeros(P)}


def _better(direction):
  return {'x': Term('X', 'An x.', better=direction)}


BROKEN = [
  ('card', _metric(lambda p: {'y': np.zeros(P)}), r"gives \['y'\]"),
  ('card', _metric(lambda p: {'x': np.zeros(3)}), r'has shape \(3,\)'),
  ('card', _metric(accuracies.accuracies, title=' '), 'title is empty'),
  (
    'card',
    _metric(lambda p: {'x': np.zeros(P)}, terms={'x': Term('X', 'An x')}),
    'is not a sentence',
  ),
  (
    'retrained',
    _metric(
      lambda p: {'x': np.zeros(P)},
      needs=('retrained',),
      terms=_better('higher'),
    ),
    'x is .* where retrained models are compared with themselves',
  ),
  ('model_order', _metric(lambda p: {'x': p.correct[0, :P]}), 'order of the m'),
  (
    'model_order',
    _metric(lambda p: {'x': np.sort(p.log_odds.mean(1))}),
    'x of a model changes',
  ),
  (
    'example_order',
    _metric(lambda p: {'x': p.log_odds[:, 0]}),
    'order of the examples',
  ),
  (
    'extreme_values',
    _metric(lambda p: {'x': np.full(P, 1 / len(p.test))}),
    'ZeroDivisionError: .* with no test examples. Give NaN',
  ),
  (
    'extreme_values',
    _metric(lambda p: {'x': p.retrained.log_odds.mean(1)}),
    'with no retrained models',
  ),
  (
    'extreme_values',
    _metric(lambda p: {'x': np.full(P, np.inf)}),
    'x is infinite with',
  ),
  ('repeat', _metric(_stateful()), 'differs between two calls'),
  ('repeat', _metric(_writes), 'it changes correct of its input'),
]


def test_every_rule_is_broken_by_some_metric_here():
  assert {rule for rule, _, _ in BROKEN} == set(testing.METRIC_RULES)


@pytest.mark.parametrize(('rule', 'metric', 'says'), BROKEN)
def test_a_broken_rule_is_named_with_what_to_do(rule, metric, says):
  with pytest.raises(testing.ContractError, match=says) as error:
    testing.check_metric(metric, rules=[rule])
  assert [fault.rule for fault in error.value.faults][0] == rule
  assert all(fault.remedy for fault in error.value.faults)


def test_a_rule_is_left_out_only_with_a_reason():
  first = lambda p: {'x': p.log_odds[:, 0]}  # noqa: E731
  testing.check_metric(_metric(first, exempt={'example_order': 'a test'}))
  with pytest.raises(testing.ContractError, match='without a reason'):
    testing.check_metric(_metric(first, exempt={'example_order': ''}))
  with pytest.raises(ValueError, match="no rules .'gravity'. for metrics"):
    testing.check_metric(_metric(first, exempt={'gravity': 'none'}))


def test_what_a_metric_needs_is_said_when_it_is_not_there():
  with pytest.raises(ValueError, match='retrained models, and there are none'):
    interface.run(metrics.METRICS['retention'], simulated())
  card = interface.Card('t', {'x': Term('X', 'An x.')}, needs=('test',))
  metric = interface.Metric('x', lambda p: {'x': np.zeros(P)}, card)
  with pytest.raises(ValueError, match='there are no test examples'):
    interface.run(metric, simulated(test=np.zeros(0, int)))


@pytest.mark.parametrize(
  ('given', 'message'),
  [
    ({'y': np.zeros(P)}, r"gives \['y'\], but its card describes \['x'\]"),
    ({'x': np.zeros(P + 1)}, 'expected one number for each of 6 models'),
  ],
)
def test_a_metric_that_breaks_its_promise_is_named(given, message):
  card = interface.Card('t', {'x': Term('X', 'An x.')})
  with pytest.raises(ValueError, match=message):
    interface.run(interface.Metric('x', lambda p: given, card), simulated())


def _example(text: str) -> str:
  """Return the code of the example metric in a text."""
  start = text.index('    import numpy as np\n    from jaxmu.metrics')
  end = text.index('\n    )\n', start) + len('\n    )\n')
  return textwrap.dedent(text[start:end])


# The example of the interface, which users copy.
PLUG_IN = _example(interface.__doc__ or '')


def test_the_page_shows_the_example_of_the_interface():
  page = pathlib.Path(__file__).parents[2] / 'docs' / 'attacks.md'
  assert _example(page.read_text()) == PLUG_IN


def test_a_file_is_a_metric(tmp_path):
  path = tmp_path / 'confidence.py'
  path.write_text(PLUG_IN)
  metric = metrics.METRICS.resolve(str(path))
  population = simulated()
  own = [
    np.median(z[s == 1])
    for z, s in zip(population.log_odds, population.state, strict=True)
  ]
  found = interface.run(metric, population)['forget_log_odds']
  np.testing.assert_array_equal(found, own)
  assert len(metrics.METRICS.fingerprint(str(path))) == 64
  path.write_text('METRIC = 3')
  with pytest.raises(ValueError, match='int is not a metric; define METRIC'):
    metrics.METRICS.resolve(str(path))
  assert isinstance(metrics.METRICS, plugins.Registry)
