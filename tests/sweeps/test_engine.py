"""The local engine: order, and what happens when a unit fails."""

from jaxmu.sweeps import engine, status
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


class Work:
  """Performs units by noting their names."""

  def __init__(self, broken, done):
    self.broken, self.done, self.performed = broken, list(done), []
    self.gone = set()  # recorded as done and not in the store

  def __call__(self, unit, parts=None):
    if self.gone.intersection(unit.needs):
      self.done = [name for name in self.done if name not in self.gone]
      raise engine.NotReady(self.gone)
    if unit.name in self.broken:
      raise ValueError(f'{unit.name} cannot\nbe made')
    self.performed.append(unit.name)
    self.done.append(unit.name)
    self.gone.discard(unit.name)

  def survey(self):
    return {
      unit.name: status.State(1, {0} if unit.name in self.done else set())
      for unit in UNITS
    }


def _run(broken=(), done=(), gone=()):
  work = Work(broken, done)
  work.gone = set(gone)
  outcome = engine.local(Graph(UNITS), work)
  return work.performed, outcome


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


def test_finished_units_are_not_performed_again():
  done, outcome = _run(done='abg')
  assert done == list('cdef')
  assert outcome == engine.Outcome({}, [])


def test_what_is_not_in_the_store_after_all_is_made_again():
  done, outcome = _run(done='abc', gone='a')
  assert done == list('adefg')
  assert outcome == engine.Outcome({}, [])
