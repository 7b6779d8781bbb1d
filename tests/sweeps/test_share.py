"""Processes that share a sweep: who performs which part, and what if one dies.

The engine is run by several threads on a table of records; processes on a real
sweep are tests marked `cluster`.
"""

import contextlib
import threading

import hypothesis
import pytest
from hypothesis import strategies

from jaxmu.sweeps import engine, status
from jaxmu.sweeps.engine import Share
from jaxmu.sweeps.graph import Graph, Unit

UNITS = [
  Unit('a', 'originals', parts=4),
  Unit('b', 'unlearned', parts=3, needs=('a',)),
  Unit('c', 'predictions', parts=3, needs=('b',)),
  Unit('d', 'unlearned', parts=3, needs=('a',)),
  Unit('e', 'predictions', parts=3, needs=('d',)),
  Unit('f', 'report', needs=('a',), uses=('c', 'e')),
  Unit('g', 'table', uses=('f',)),
]
PARTS = {(unit.name, part) for unit in UNITS for part in range(unit.parts)}


class Table:
  """Records and claims that several threads share."""

  def __init__(self, broken=()):
    self.broken = broken
    self.lock = threading.Lock()
    self.made = []
    self.done = {unit.name: set() for unit in UNITS}
    self.claims = set()
    self.gone = set()  # recorded and not in the store

  def __call__(self, unit, parts=None):
    with self.lock:
      for name in unit.needs:
        self.done[name] -= {part for one, part in self.gone if one == name}
        whole = set(range(next(u.parts for u in UNITS if u.name == name)))
        if self.done[name] != whole:
          assert self.gone, f'{unit.name} before {name}'
          raise engine.NotReady([name])
    for part in parts:
      if (unit.name, part) in self.broken:
        raise ValueError(f'{unit.name} cannot be made')
      with self.lock:
        known = part in self.done[unit.name]
        if not known or (unit.name, part) in self.gone:
          self.made.append((unit.name, part))
        self.done[unit.name].add(part)
        self.gone.discard((unit.name, part))

  @contextlib.contextmanager
  def claimed(self, unit, parts):
    with self.lock:
      own = [p for p in parts if (unit.name, p) not in self.claims]
      self.claims |= {(unit.name, p) for p in own}
    try:
      yield own
    finally:
      with self.lock:
        self.claims -= {(unit.name, p) for p in own}

  def survey(self):
    with self.lock:
      return {
        unit.name: status.State(unit.parts, done=set(self.done[unit.name]))
        for unit in UNITS
      }

  def tell(self, line):
    del line


def _run(table, shares):
  outcomes = {}

  def one(which):
    engine_ = engine.Shared(which, pause=0.001)
    outcomes[which] = engine_(Graph(UNITS), table)

  threads = [threading.Thread(target=one, args=(s,)) for s in shares]
  for thread in threads:
    thread.start()
  for thread in threads:
    thread.join(timeout=60)
    assert not thread.is_alive()
  return outcomes


@hypothesis.settings(deadline=None, max_examples=15)
@hypothesis.given(strategies.integers(1, 5), strategies.data())
def test_every_part_is_made_once_whoever_runs(count, data):
  running = data.draw(
    strategies.lists(strategies.integers(0, count - 1), min_size=1, unique=True)
  )
  table = Table()
  outcomes = _run(table, [Share(k, count) for k in running])
  assert set(table.made) == PARTS and len(table.made) == len(PARTS)
  assert all(one == engine.Outcome({}, []) for one in outcomes.values())


def test_each_process_makes_its_own_parts_if_none_waits():
  graph = Graph(UNITS)
  for position, unit in enumerate(graph):
    owners = [
      [k for k in range(3) if Share(k, 3).owns(position, part)]
      for part in range(unit.parts)
    ]
    assert all(len(owner) == 1 for owner in owners)


def test_a_part_that_fails_stops_only_what_needs_it():
  table = Table(broken={('b', 1)})
  outcomes = _run(table, [Share(0, 2), Share(1, 2)])
  for outcome in outcomes.values():
    assert outcome == engine.Outcome({'b': 'b cannot be made'}, ['c'])
  assert table.done['f'] and table.done['g'] and len(table.done['e']) == 3
  assert set(table.made) == PARTS - {('b', 1), ('c', 0), ('c', 1), ('c', 2)}


def test_what_is_not_in_the_store_after_all_is_made_again():
  table = Table()
  table.done['a'] = {0, 1, 2, 3}
  table.gone = {('a', 2)}
  outcomes = _run(table, [Share(0, 2), Share(1, 2)])
  assert all(one == engine.Outcome({}, []) for one in outcomes.values())
  assert ('a', 2) in table.made and not table.gone


@pytest.mark.parametrize(
  ('text', 'environment', 'expected'),
  [
    ('1/1', {}, Share(0, 1)),
    ('4/4', {}, Share(3, 4)),
    (
      'auto',
      {
        'SLURM_ARRAY_TASK_ID': '5',
        'SLURM_ARRAY_TASK_MIN': '3',
        'SLURM_ARRAY_TASK_MAX': '6',
      },
      Share(2, 4),
    ),
    (
      'auto',
      {'JOB_COMPLETION_INDEX': '0', 'JOB_COMPLETIONS': '8'},
      Share(0, 8),
    ),
    (
      'auto',
      {'TPU_WORKER_ID': '1', 'TPU_WORKER_HOSTNAMES': 'a,b'},
      Share(1, 2),
    ),
  ],
)
def test_share_of_a_process(text, environment, expected):
  assert engine.parse_share(text, environment) == expected


@pytest.mark.parametrize(
  ('text', 'environment', 'part'),
  [
    ('0/4', {}, '--share=1/4 to --share=4/4'),
    ('5/4', {}, '--share=5/4'),
    ('١/٤', {}, '--share=1/4'),
    ('two', {}, 'INDEX/COUNT'),
    ('auto', {}, 'SLURM_ARRAY_TASK_ID'),
    (
      'auto',
      {'JOB_COMPLETION_INDEX': '8', 'JOB_COMPLETIONS': '8'},
      'process 8 of 8',
    ),
    ('auto', {'TPU_WORKER_ID': 'x', 'TPU_WORKER_HOSTNAMES': 'a'}, 'no number'),
    (
      'auto',
      {
        'SLURM_ARRAY_TASK_ID': '0',
        'SLURM_ARRAY_TASK_MIN': '0',
        'SLURM_ARRAY_TASK_MAX': '8',
        'SLURM_ARRAY_TASK_STEP': '2',
      },
      'steps of 2',
    ),
  ],
)
def test_a_share_that_is_none_is_refused_in_one_line(text, environment, part):
  with pytest.raises(ValueError, match='--share=') as caught:
    engine.parse_share(text, environment)
  assert part in str(caught.value) and '\n' not in str(caught.value)
