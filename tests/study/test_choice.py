"""The choice of a plan from given measurements; no test measures anything."""

import itertools

import pytest

from jaxmu.study import execution
from jaxmu.study.execution import (
  Budget,
  Conditions,
  Measured,
  MemoryEstimate,
  Plan,
)


def _measured(devices, chunk, images, *, resident=10.0, working=100.0):
  need = MemoryEstimate(resident, 0.0, working * chunk)
  made = Conditions(0.0, 0.0, 0.0)
  return Measured(Plan(devices, chunk), images, 5.0, need, 0, made)


def _budget(members=8, limit=1e9):
  return Budget(members, lambda devices: 50, lambda devices: limit / devices)


def test_the_fastest_plan_is_chosen():
  found = [_measured(2, 1, 900), _measured(2, 2, 1200), _measured(1, 1, 700)]
  best, why = execution.choose_fastest(found, _budget())
  assert best == found[1]
  assert why[1] == 'chosen: fastest'
  assert all('chosen' not in reason for reason in (why[0], why[2]))


def test_of_plans_equally_fast_the_smallest_is_chosen():
  found = [_measured(2, 1, 980), _measured(2, 4, 1000)]
  best, why = execution.choose_fastest(found, _budget())
  assert best == found[0]
  assert why[0] == 'chosen: nearly as fast, less memory'


def test_padding_counts_against_a_plan():
  # Nine models in chunks of 8 run as sixteen.
  found = [_measured(1, 1, 1000), _measured(1, 8, 1700)]
  assert execution.choose_fastest(found, _budget(members=9)).best == found[0]
  assert execution.choose_fastest(found, _budget(members=16)).best == found[1]


def test_a_plan_beyond_the_limit_is_not_chosen():
  found = [_measured(1, 1, 100), _measured(1, 8, 1000)]
  # 50 shared + 8 * 10 resident + 100 per member in flight.
  assert execution.choose_fastest(found, _budget(limit=930)).best == found[1]
  best, why = execution.choose_fastest(found, _budget(limit=929))
  assert best == found[0]
  assert why[1] == 'exceeds the memory limit'
  assert execution.choose_fastest(found, _budget(limit=229)).best is None


def test_the_margin_raises_predictions_before_the_limit():
  found = [_measured(1, 1, 100)]
  # 50 shared + 8 * 10 resident + 100 in flight.
  budget = _budget(limit=249)._replace(margin=1.1)
  assert execution.choose_fastest(found, budget).best == found[0]
  assert (
    execution.choose_fastest(found, budget._replace(margin=1.11)).best is None
  )


def test_devices_of_one_machine_share_the_limit():
  found = [_measured(2, 1, 1000), _measured(1, 1, 600)]
  # On each of two: 50 + 4 * 10 + 100.
  assert execution.choose_fastest(found, _budget(limit=380)).best == found[0]
  assert execution.choose_fastest(found, _budget(limit=379)).best == found[1]


def test_data_that_devices_share_count_once():
  found = [_measured(2, 1, 1000)]
  budget = _budget(limit=330)._replace(shared=lambda devices: 50 / devices)
  # 50 for both, and on each 4 * 10 + 100.
  assert execution.choose_fastest(found, budget).best == found[0]
  less = budget._replace(limit=lambda devices: 329 / devices)
  assert execution.choose_fastest(found, less).best is None


def test_a_plan_that_ran_out_of_memory_is_not_chosen():
  found = [_measured(1, 1, 100), _measured(1, 2, 0)]
  best, why = execution.choose_fastest(found, _budget())
  assert best == found[0]
  assert why[1] == 'ran out of memory'


def _search(speed, **options):
  """Probe until the search ends; return the plans."""
  found = []
  settings = dict(devices=0, chunk=0, visible=2, members=16, on_cpu=True)
  for _ in range(20):
    plan = execution.next_plan(found, **{**settings, **options})
    if plan is None:
      return [tuple(one.plan) for one in found]
    assert plan not in {one.plan for one in found}
    found.append(_measured(*plan, speed(*plan)))
  raise AssertionError('the search does not end')


def test_chunks_are_doubled_while_it_pays():
  faster_up_to_4 = lambda devices, chunk: 100 * min(chunk, 4)  # noqa: E731
  plans = _search(faster_up_to_4, visible=1, members=64, on_cpu=False)
  assert plans == [(1, 1), (1, 2), (1, 4), (1, 8)]


def test_chunks_beyond_memory_end_the_search():
  speed = lambda devices, chunk: 100 * chunk if chunk < 4 else 0  # noqa: E731
  plans = _search(speed, visible=1, members=64, on_cpu=False)
  assert plans == [(1, 1), (1, 2), (1, 4)]


def test_chunks_do_not_exceed_what_a_shard_fills():
  speed = lambda devices, chunk: 100.0 * chunk  # noqa: E731
  assert _search(speed, members=8, on_cpu=False) == [(2, 1), (2, 2), (2, 4)]


def test_on_a_cpu_one_device_with_all_cores_is_tried_too():
  slower = lambda devices, chunk: 100 / chunk  # noqa: E731
  assert _search(slower) == [(2, 1), (2, 2), (1, 1)]


@pytest.mark.parametrize(
  ('settings', 'plans'),
  [
    ({'devices': 1, 'chunk': 4}, [(1, 4)]),
    ({'devices': 1}, [(1, 1), (1, 2)]),
    ({'chunk': 4}, [(2, 4), (1, 4)]),
  ],
)
def test_what_is_set_is_not_searched(settings, plans):
  assert _search(lambda devices, chunk: 100.0, **settings) == plans


def test_only_large_jobs_probe_unasked():
  # 1.1 million forward passes of 1.3 MFLOP; the paper's 418 million of 74.
  assert not execution.is_large(1.1e6 * 1.3e6, 2, 'cpu')
  assert execution.is_large(418e6 * 74e6, 2, 'cpu')
  assert not execution.is_large(418e6 * 74e6, 1, 'gpu')


def test_probing_ends_at_its_share_of_the_job():
  costs = itertools.accumulate([10.0] * 10)
  allowed = [execution.may_go_on(spent, 10.0, 2000.0) for spent in costs]
  assert allowed == [True] * 3 + [False] * 7
