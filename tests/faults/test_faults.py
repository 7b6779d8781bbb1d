"""Some trials of each group; see docs/reliability.md for many."""

import pytest

from tests.faults import damage, forks, run, tiny_job, trials

# A prime number of trials meets kinds and targets in other pairs. Kills, full
# disks and processes take longer; some are tested in tests/study as well.
FEW = {'files': 11, 'inputs': 60}
MANY = {'kills': 10, 'files': 30, 'disks': 7, 'processes': 5, 'inputs': 150}


@pytest.fixture(name='home', scope='module')
def _home(tmp_path_factory):
  yield from tiny_job.homes(tmp_path_factory.mktemp('faults'))


def _bad(home, folder, group, count):
  table = trials.Table(folder / 'trials.jsonl')
  run.GROUPS[group](home, table, count)
  assert len(table.trials) == count
  return [
    f'{t.result}: {t.kind}, {t.name}: {t.detail[:600]}' for t in table.bad()
  ]


@pytest.mark.xdist_group('faults')
@pytest.mark.parametrize('group', FEW)
def test_nothing_is_lost_silent_or_a_traceback(home, tmp_path, group):
  assert not _bad(home, tmp_path, group, FEW[group])


@pytest.mark.slow
@pytest.mark.xdist_group('faults')
@pytest.mark.parametrize('group', run.GROUPS)
def test_nothing_is_lost_silent_or_a_traceback_in_many_trials(
  home, tmp_path, group
):
  assert not _bad(home, tmp_path, group, MANY[group])


def test_a_file_is_swapped_with_none_outside_of_the_trial(tmp_path):
  (tmp_path / 'trial' / 'work').mkdir(parents=True)
  outside, sums, other = (
    tmp_path / name for name in ('go.sh', 'trial/work/SUMS', 'trial/work/LOG')
  )
  draw, within = trials.generator('swap'), tmp_path / 'trial'
  for path in (outside, sums, other):
    path.write_text(path.name)
  for _ in range(20):
    assert damage.swap(sums, draw, within) == f'swapped with {other}'
  other.unlink()
  assert damage.swap(sums, draw, within).startswith('holds ')
  assert outside.read_text() == outside.name


def test_a_table_goes_on_where_it_stopped(tmp_path):
  table = trials.Table(tmp_path / 'trials.jsonl')
  plan = [trials.Trial('a', 'b', str(n)) for n in range(3)]
  survived = trials.dataclasses.replace(plan[0], result='survived')
  table.add(survived)
  ran = []

  def perform(trial):
    ran.append(trial.name)
    return trials.dataclasses.replace(trial, result='silent')

  again = trials.Table(tmp_path / 'trials.jsonl')
  again.run(plan, perform)
  assert ran == ['1', '2'] and len(again.trials) == 3
  assert [trial.name for trial in again.bad()] == ['1', '2']
  text = again.write_summary().read_text()
  assert text.splitlines()[1].startswith('a,b,3,1,0,2,0,0,python -m ')


def test_the_page_has_the_counts_of_the_last_run():
  counts = (forks.ROOT / 'benchmarks' / 'faults.csv').read_text()
  assert (
    trials.markdown(counts)
    in (forks.ROOT / 'docs' / 'reliability.md').read_text()
  )
