"""The graph of a sweep: what is in it, what needs what, and the counts."""

import collections

import pytest

from jaxmu.sweeps import design, graph, plan
from tests.sweeps import small_sweep


def _graph(config):
  sweep = design.from_config(config)
  return sweep, graph.build(sweep)


def test_models_of_the_benchmark_per_stage():
  """99,520 models (arXiv 2410.01276), counted from its rules."""
  sweep, units = _graph(design.deep_unlearn('reference'))
  counts = collections.Counter()
  for study in sweep.studies:
    counts.update(plan.benchmark_models(study))
  assert counts == {
    'search': 54_000,
    'unlearned': 1_800,
    'originals and retrained': 200,
    'U-LiRA search': 38_400,
    'U-LiRA unlearned': 3_840,
    'U-LiRA originals and retrained': 1_280,
  }
  assert counts.total() == 99_520
  text = plan.text(sweep, units)
  assert 'The benchmark trains 99,520 models for this' in text
  line = next(one for one in text.splitlines() if one.startswith('total'))
  # 60 + 64 models of searches, 540 + 192 default settings, 576 originals less.
  assert line.split()[1:3] == ['99,520', f'{99_520 + 124 + 732 - 576:,}']


def test_what_our_defaults_add_is_printed():
  sweep, units = _graph(design.deep_unlearn('paper'))
  text = plan.text(sweep, units)
  assert 'The benchmark trains 99,520 models for this' in text
  # 20 finalists and the default, on 5 initialisations, for 186 searches.
  judged = 21 * 5 * (5 * 2 * 18 + 6)
  assert f'+{judged:,}  the default setting, and the best' in text


def test_models_of_units_are_those_of_the_stages(tmp_path):
  sweep, units = _graph(small_sweep.config(tmp_path))
  trained = collections.Counter()
  for unit in units:
    if unit.kind in graph.TRAINS:
      trained[plan.stage(unit)] += unit.models
  assert trained == {
    'search': 2 * (2 + 2) + 2 * 2,  # trials, judgement, two pairs of models
    'unlearned': 2 * 5,
    'originals and retrained': 5 + 5,
    'U-LiRA search': 2 + 2 + 2 * 2,
    'U-LiRA unlearned': 8 * 2,
    'U-LiRA originals and retrained': 8 + 16,
  }
  originals = units.units['digits_tiny/main/originals']
  assert originals.parts == originals.tasks == 2
  # Two processes that search the same method would write the same files.
  search = units.units['digits_tiny/search/search/ft']
  assert search.parts == 2 and search.tasks == 1


def test_units_come_after_what_they_need(tmp_path):
  _, units = _graph(small_sweep.config(tmp_path, models=('tiny', 'resnet18')))
  before: set[str] = set()
  for unit in units:
    assert before.issuperset({*unit.needs, *unit.uses}), unit.name
    before.add(unit.name)
  by_name = units.units
  assert by_name['digits_tiny/main/unlearned/ga'].needs == (
    'digits_tiny/main/originals',
    'digits_tiny/search/search/ga',
  )
  assert by_name['digits_tiny/ulira/unlearned/ft'].needs == (
    'digits_tiny/ulira/originals',
    'digits_tiny/ulira_search/search/ft',
  )
  report = by_name['digits_tiny/main/report']
  assert [name.rpartition('/')[2] for name in report.needs] == [
    'original',
    'retrain',
  ]
  assert [name.rpartition('/')[2] for name in report.uses] == ['ft', 'ga']
  assert len(by_name['leaderboard'].uses) == 3


def test_a_part_of_the_graph_holds_what_it_needs(tmp_path):
  _, units = _graph(small_sweep.config(tmp_path))
  part = units.select('digits_tiny/main/unlearned/ga')
  assert list(part.units) == [
    'digits_tiny/search/originals',
    'digits_tiny/search/retrained',
    'digits_tiny/search/search/ga',
    'digits_tiny/main/originals',
    'digits_tiny/main/unlearned/ga',
  ]
  whole = units.select('digits_tiny')
  assert [*whole.units, 'leaderboard'] == list(units.units)
  with pytest.raises(ValueError, match="did you mean 'digits_tiny'"):
    units.select('digits_tini')


def test_a_graph_of_many_parts_is_as_small_as_any(tmp_path):
  config = small_sweep.config(tmp_path)
  _, few = _graph(config)
  config['all']['run.shard'] = 1
  config['main'] |= {'splits.seeds': 10_000, 'run.shard': 1}
  config['ulira'] |= {'splits.num_splits': 1000, 'splits.forget_sets': 10}
  _, many = _graph(config)
  assert many.parts > 100_000 and len(many) == len(few)


def test_sizes_without_data_are_those_of_the_job(tmp_path):
  from jaxmu.study import job, planner

  sweep = design.from_config(small_sweep.config(tmp_path))
  for study in sweep.studies:
    if study.searches:
      continue
    opened = job.open_job(study.settings)
    assert plan.set_sizes(study.settings) == opened.sizes
    count = {n: p.members.size for n, p in opened.populations.items()}
    expected = graph.members(study.settings)
    assert (count['original'], count['retrain']) == expected
    costs = plan.costs(sweep, graph.build(sweep))
    own = [c for n, c in costs.items() if n.startswith(f'{study.name}/')]
    steps = planner.plan_steps(opened)
    disk = planner.bytes_to_write(steps)
    assert plan.total(own).disk == disk
