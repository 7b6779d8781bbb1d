"""The local engine: order, and what happens when a unit fails."""

from jaxmu.sweeps import engine
from jaxmu.sweeps.graph import Graph, Unit

UNITS = [
  Unit('a', 'originals'),
  Unit('b', 'unlearned', needs=('a',)),
  Unit('c', 'predictions', needs=('b',)),
  Unit('d', 'unlearned', needs=('a',)),
  Unit('e', 'predictions', needs=('d',)),
  Unit('f', 'report', needs=('a',), uses=('c', 'e')),
  Unit('g', 'table', uses=('f',)),
]


def _run(broken=()):
  done = []

  def perform(unit):
    if unit.name in broken:
      raise ValueError(f'{unit.name} cannot\nbe made')
    done.append(unit.name)

  return done, engine.local(Graph(UNITS), perform)


def test_units_are_performed_in_order():
  done, outcome = _run()
  assert done == list('abcdefg')
  assert outcome == engine.Outcome({}, [])


def test_a_failure_stops_only_what_needs_it():
  done, outcome = _run({'b'})
  assert done == list('adefg')
  assert outcome == engine.Outcome({'b': 'b cannot be made'}, ['c'])
  done, outcome = _run({'a'})
  assert done == ['g'] and outcome.blocked == list('bcdef')


def test_the_reason_of_any_exception_is_one_line():
  assert engine.reason(KeyError('x')).startswith('KeyError')
  assert engine.reason(ValueError()) != ''
