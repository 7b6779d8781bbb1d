"""What every metric promises, whatever values the models take."""

import dataclasses
import pathlib
import textwrap

import numpy as np
import pytest

from jaxmu import metrics, plugins
from jaxmu.attacks import intervals
from jaxmu.metrics import interface
from jaxmu.terms import Term

P, N, DEV = 6, 60, 40


def make(seed=0, name='ft', **changes):
  """Return a population of six models, twelve of sixty examples forgotten."""
  rng = np.random.default_rng(seed)
  state = np.zeros((P, N), np.int8)
  state[:, DEV - 4 :] = 3
  for p in range(P):
    state[p, rng.permutation(DEV - 4)[:12]] = 1
  log_odds = rng.normal(1, 2, (P, N))
  fields = dict(
    name=name,
    log_odds=log_odds,
    correct=log_odds > 0,
    state=state,
    validation=np.arange(DEV - 4, DEV),
    test=np.arange(DEV, N),
    cluster=np.arange(P),
    split=np.zeros(P, int),
    classes=2,
    failed=np.zeros(P, bool),
  )
  return interface.Evaluated(**{**fields, **changes})


def with_retrained(population):
  reference = make(seed=1, name='retrain', state=population.state)
  reference = dataclasses.replace(
    reference,
    validation=population.validation,
    test=population.test,
    cluster=population.cluster,
  )
  return dataclasses.replace(population, retrained=reference)


def values(metric, population):
  """Return one number per name: means over models, NaN left out."""
  found = {}
  for name, value in interface.run(metric, population).items():
    if isinstance(value, intervals.Estimate):
      found[name] = value.value
    else:
      found[name] = float(value[np.isfinite(value)].sum())
  return found


def reorder(population, models, examples):
  def one(p):
    place = np.argsort(examples)
    return dataclasses.replace(
      p,
      log_odds=p.log_odds[models][:, examples],
      correct=p.correct[models][:, examples],
      state=p.state[models][:, examples],
      validation=np.sort(place[p.validation]),
      test=np.sort(place[p.test]),
      cluster=p.cluster[models],
      split=p.split[models],
      failed=p.failed[models],
      retrained=None,
    )

  moved = one(population)
  return dataclasses.replace(moved, retrained=one(population.retrained))


every_metric = pytest.mark.parametrize(
  'metric', metrics.METRICS.values(), ids=list(metrics.METRICS)
)


@every_metric
def test_numbers_are_those_of_the_card(metric):
  given = interface.run(metric, with_retrained(make()))
  assert list(given) == list(metric.card.terms)
  for value in given.values():
    if isinstance(value, np.ndarray):
      assert value.shape == (P,) and value.dtype == np.float64


@every_metric
def test_retrained_models_are_at_the_best_value(metric):
  """Nothing separates retrained models from themselves."""
  reference = make(seed=1, name='retrain')
  population = dataclasses.replace(reference, retrained=reference)
  best = {'one': 1.0, 'zero': 0.0}
  for name, value in interface.run(metric, population).items():
    term = metric.card.terms[name]
    if 'retrained' in metric.card.needs:
      target = best.get(term.better, 1.0 if term.better == 'higher' else 0.0)
      number = value.value if isinstance(value, intervals.Estimate) else value
      np.testing.assert_allclose(number, target, atol=1e-12)


@every_metric
def test_order_of_models_and_examples_does_not_matter(metric):
  population = with_retrained(make())
  rng = np.random.default_rng(3)
  moved = reorder(population, rng.permutation(P), np.arange(N))
  before, after = values(metric, population), values(metric, moved)
  for name in before:
    assert after[name] == pytest.approx(before[name]), name
  if 'order of examples' in metric.card.exempt:
    return
  moved = reorder(population, np.arange(P), rng.permutation(N))
  after = values(metric, moved)
  for name in before:
    assert after[name] == pytest.approx(before[name]), name


LARGEST = float(np.finfo(np.float32).max)
EXTREMES = {
  'constant': dict(log_odds=np.zeros((P, N)), correct=np.zeros((P, N), bool)),
  'diverged': dict(
    log_odds=np.full((P, N), -LARGEST), correct=np.zeros((P, N), bool)
  ),
  'huge': dict(log_odds=np.full((P, N), LARGEST) * (-1.0) ** np.arange(N)),
  'no test': dict(test=np.zeros(0, int)),
  'no validation': dict(validation=np.zeros(0, int)),
  'nothing retained': dict(state=np.ones((P, N), np.int8)),
  'nothing forgotten': dict(state=np.zeros((P, N), np.int8)),
  'one cluster': dict(cluster=np.zeros(P, int)),
}


@every_metric
@pytest.mark.parametrize('case', EXTREMES)
@pytest.mark.parametrize('both', [False, True], ids=['own', 'also retrained'])
def test_no_value_that_a_model_may_take_raises(metric, case, both):
  population = with_retrained(make(**EXTREMES[case]))
  if both:
    reference = dataclasses.replace(population, retrained=None)
    population = dataclasses.replace(population, retrained=reference)
  given = interface.run(metric, population)
  for value in given.values():
    if isinstance(value, np.ndarray):
      assert not np.isinf(value).any()


def test_what_a_metric_needs_is_said_when_it_is_not_there():
  with pytest.raises(ValueError, match='retrained models, and there are none'):
    interface.run(metrics.METRICS['retention'], make())
  card = interface.Card('t', {'x': Term('X', 'An x.')}, needs=('test',))
  metric = interface.Metric('x', lambda p: {'x': np.zeros(P)}, card)
  with pytest.raises(ValueError, match='there are no test examples'):
    interface.run(metric, make(test=np.zeros(0, int)))


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
    interface.run(interface.Metric('x', lambda p: given, card), make())


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
  population = make()
  own = [
    np.median(z[s == 1])
    for z, s in zip(population.log_odds, population.state, strict=True)
  ]
  found = interface.run(metric, population)['forget_log_odds']
  np.testing.assert_array_equal(found, own)
  assert len(metrics.METRICS.fingerprint(str(path))) == 64
  path.write_text('METRIC = 3')
  with pytest.raises(ValueError, match='int is no metric; define METRIC'):
    metrics.METRICS.resolve(str(path))
  assert isinstance(metrics.METRICS, plugins.Registry)
