"""What a running search shows: counts, best norm, speed and time left."""

import io

import pytest

from jaxmu.report import progress
from jaxmu.tuning import plan
from tests.report.test_progress import Clock


def _pace(**trials: int):
  stream, clock = io.StringIO(), Clock()
  bars = progress.Progress(stream, interval=10, clock=clock)
  return stream, clock, plan.Pace(bars, trials, clock=clock)


def test_the_line_of_a_search_shows_method_and_whole():
  stream, clock, pace = _pace(msg=40, ft=60)
  with pace.method('msg'):
    pace.advance(10, stored=True, best=0.5)
    clock.now += 30
    pace.advance(10, stored=False, best=0.25)
    clock.now += 30
    pace.advance(20, stored=False, best=0.75)
  with pace.method('ft'):
    clock.now += 60
    pace.advance(30, stored=False)
    clock.now += 60
    pace.advance(30, stored=False, best=0.125)
  assert stream.getvalue().splitlines() == [
    'search msg: 0 of 40 trials',
    'search msg: 20 of 40 trials, 30 s, about 1 min 00 s left, best norm '
    '0.2500, 20 trials/min, all 2 methods: 20 of 100 trials, about 4 min 00 s '
    'left',
    'search msg: 40 trials in 1 min 00 s',
    'search ft: 0 of 60 trials',
    # Trained so far: 30 + 30 in two minutes; 30 are left.
    'search ft: 30 of 60 trials, 1 min 00 s, at most 1 min 00 s left, '
    '30 trials/min, all 2 methods: 70 of 100 trials, about 1 min 00 s left',
    'search ft: 60 trials in 2 min 00 s',
  ]


def test_stored_trials_have_no_speed():
  _, clock, pace = _pace(msg=40)
  with pace.method('msg'):
    clock.now += 1
    pace.advance(40, stored=True, best=0.1)
    assert pace.note() == 'best norm 0.1000'


def test_fewer_finalists_than_planned_still_complete_a_method():
  _, clock, pace = _pace(msg=10, ft=10)
  with pace.method('msg'):
    clock.now += 7
    pace.advance(7, stored=False)
  with pace.method('ft'):
    assert 'all 2 methods: 10 of 20 trials' in pace.note()


def test_a_failure_leaves_the_line_of_a_stopped_stage():
  stream, _, pace = _pace(msg=10)
  with pytest.raises(KeyError), pace.method('msg'):
    pace.advance(3, stored=False)
    raise KeyError
  assert 'search msg: stopped at 3 of 10 trials' in stream.getvalue()
