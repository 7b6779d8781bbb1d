"""`python -m jaxmu.rank`: finished jobs in, one ranking out."""

import json
import shlex

import numpy as np
import pytest
from scipy import stats

from jaxmu import rank
from jaxmu.report import glossary, results

METHODS = ('ft', 'msg', 'ga')
SPEED = {'ft': 10.0, 'msg': 5.0, 'ga': 20.0}


def write(
  folder, worse, seeds=10, methods=METHODS, seed=0, retrained='', settings=''
):
  """Write what a job leaves: `worse` is the method with the largest RetDev."""
  rng = np.random.default_rng(seed)
  found = []
  for method in ('original', 'retrain', *methods):
    for s in range(seeds):
      values = {
        'ret_dev': (0.5 if method == worse else 0.1) + 0.01 * rng.random(),
        'indisc_test': 0.95 + 1e-4 * rng.random(),
        'ta': 0.1 if method == 'ga' and worse == 'guessing' else 0.9,
      }
      found += [results.Observation(method, k, s, v) for k, v in values.items()]
  folder.mkdir(parents=True)
  results.write_csv(folder / 'per_cluster.csv', found, results.Observation)
  clock = [results.Row(name, 'rte', SPEED[name]) for name in methods]
  results.write_csv(folder / 'timing.csv', clock)
  digests = {'retrain': retrained, **{name: settings for name in methods}}
  results.write_json(
    folder / 'results.json',
    {'provenance': {'data': {'classes': 10}, 'results': digests}},
  )
  return str(folder)


def report_on(jobs):
  """Return the report of the only study."""
  (one,) = rank.rank(jobs).values()
  return one.report


def test_ranks_over_jobs(tmp_path):
  jobs = [
    write(tmp_path / 'a', 'msg', seed=0),
    write(tmp_path / 'b', 'msg', seed=1),
    write(tmp_path / 'c', 'guessing', seed=2),
  ]
  report = report_on(jobs)
  value = {(r.method, r.metric): r for r in report.rows}
  assert glossary.missing(r.metric for r in report.rows) == []
  # Ranks within each job, then over jobs.
  naive = []
  for job in jobs:
    rows = results.read_csv(f'{job}/per_cluster.csv', results.Observation)
    own = np.array(
      [
        [r.value for r in rows if (r.method, r.metric) == (m, 'ret_dev')]
        for m in METHODS
      ]
    )
    if job == jobs[2]:
      own[2] = 1.0  # guesses, hence last
    naive.append(stats.rankdata(stats.rankdata(own, axis=0).mean(axis=1)))
  for method, expected in zip(METHODS, np.mean(naive, axis=0), strict=True):
    row = value[method, 'rank_ret_dev']
    assert row.value == pytest.approx(expected) and row.n == 3
    assert row.low <= row.value <= row.high
  placed = {
    m: [value[m, f'{p}_ret_dev'].value for p in ('first', 'second')]
    for m in METHODS
  }
  assert placed == {'ft': [3, 0], 'msg': [1, 2], 'ga': [2, 0]}
  assert value['ga', 'third_ret_dev'].value == 1
  # Disc differs by less than its noise, so all that work are in group 1.
  assert value['ft', 'first_disc_test'].value == 3
  assert [value[m, 'rank_rte'].value for m in METHODS] == [2, 3, 1]
  assert (
    value['ft', 'rank_combined'].value < value['msg', 'rank_combined'].value
  )
  names = {picture.name for picture in report.pictures}
  assert names == {'rank_ret_dev', 'rank_disc_test', 'rank_rte'}
  assert all(picture.png for picture in report.pictures)


def test_methods_that_a_job_lacks_are_named(tmp_path):
  jobs = [
    write(tmp_path / 'a', 'msg'),
    write(tmp_path / 'b', 'msg', methods=('ft', 'msg')),
  ]
  report = report_on(jobs)
  assert {row.method for row in report.rows} == {'ft', 'msg'}
  assert report.warnings == ['Left out because some job lacks them: GA']


def test_jobs_of_one_method_each_are_ranked_together(tmp_path):
  jobs = [
    write(tmp_path / m, 'msg', methods=(m,), retrained='f00') for m in METHODS
  ]
  report = report_on(jobs)
  value = {(r.method, r.metric): r for r in report.rows}
  assert {row.method for row in report.rows} == set(METHODS)
  assert value['msg', 'rank_ret_dev'].value == 3
  assert np.isnan(value['msg', 'rank_ret_dev'].low)
  assert [value[m, 'rank_rte'].value for m in METHODS] == [2, 3, 1]
  assert not report.warnings
  assert 'over 10 initialisations' in report.title
  other = write(tmp_path / 'x', 'msg', retrained='ba4')
  assert report_on([*jobs, other]).title.endswith('same retrained models')


def test_jobs_of_the_same_method_with_other_settings_stay_apart(tmp_path):
  jobs = [
    write(tmp_path / name, 'msg', retrained='f00', settings=name)
    for name in 'ab'
  ]
  assert {row.n for row in report_on(jobs).rows} == {2}
  same = [
    write(tmp_path / name, 'msg', retrained='f00', settings='same')
    for name in 'cd'
  ]
  assert {row.n for row in report_on(same).rows} == {1}


def test_the_printed_command_makes_the_report_again(tmp_path, monkeypatch):
  monkeypatch.setenv('HOME', str(tmp_path))
  write(tmp_path / 'a b', 'msg', seed=0)
  write(tmp_path / 'c', 'msg', seed=1)
  rank.main(['~/a b', '~/c', '--out=~/out {1}'])
  out = tmp_path / 'out {1}'
  first = (out / 'results.csv').read_bytes()
  facts = json.loads((out / 'results.json').read_text())
  (out / 'results.csv').unlink()
  words = shlex.split(facts['command'])
  assert words[:3] == ['python', '-m', 'jaxmu.rank']
  rank.main(words[3:])
  assert (out / 'results.csv').read_bytes() == first


def test_a_report_replaces_none_of_a_job(tmp_path):
  one, two = (write(tmp_path / 'cell' / n, 'msg') for n in ('main', 'ulira'))
  before = {path: path.read_bytes() for path in tmp_path.rglob('*.*')}
  for argv in (
    [one, two, f'--out={one}'],
    [str(tmp_path), f'--out={tmp_path / "cell"}'],
  ):
    with pytest.raises(SystemExit, match='main is the work directory of a job'):
      rank.main(argv)
  assert before == {path: path.read_bytes() for path in tmp_path.rglob('*.*')}


def test_a_report_that_cannot_be_written_is_one_line(tmp_path):
  write(tmp_path / 'cell' / 'main', 'msg')
  (tmp_path / 'out').mkdir()
  (tmp_path / 'out' / 'main').write_text('a file of the user')
  for out, expected in (
    (tmp_path / 'out', 'main cannot be made.*choose another folder'),
    ('s3://bucket/x', 's3://bucket/x/main is a URL; choose a folder'),
  ):
    with pytest.raises(SystemExit, match=f'--out=.*{expected}'):
      rank.main([str(tmp_path), f'--out={out}'])
  assert (tmp_path / 'out' / 'main').read_text() == 'a file of the user'


def test_a_job_counts_once_by_whatever_path(tmp_path):
  one = write(tmp_path / 'a', 'msg')
  (tmp_path / 'link').symlink_to(one)
  for other in (tmp_path / 'link', f'{tmp_path}/a/../a'):
    with pytest.raises(ValueError, match='each once'):
      rank.rank([one, str(other)])


def test_what_cannot_be_ranked_is_named(tmp_path, capsys):
  one, few = write(tmp_path / 'a', 'msg'), write(tmp_path / 'b', 'msg', seeds=4)
  lone = write(tmp_path / 'c', 'msg', methods=('msg',), retrained='f00')
  more = write(tmp_path / 'd', 'ft', methods=('ft',), retrained='ba4')
  with pytest.raises(ValueError, match='give at least 2 jobs'):
    rank.rank([one, one])
  out = tmp_path / 'out'
  rank.main([str(one), str(few), str(lone), f'--out={out}'])
  told = capsys.readouterr().err.splitlines()
  assert len(told) == 2
  assert 'c has a single method, MSG, and no other job' in told[0]
  assert 'b cannot be ranked' in told[1] and '5 init' in told[1]
  assert {r.n for r in results.read_csv(out / 'results.csv')} == {1}
  with pytest.raises(ValueError, match='nothing can be ranked.*c has.*d has'):
    rank.rank([lone, more])
  with pytest.raises(ValueError, match='nothing can be ranked.*b cannot'):
    rank.rank([few, lone])
  with pytest.raises(ValueError, match='give the workdir'):
    rank.rank([one, str(tmp_path / 'none')])
