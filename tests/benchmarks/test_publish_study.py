"""Studies of a sweep become folders of published results."""

import json
import re
import shutil
import types

import pytest

from jaxmu import main as job_command
from jaxmu.published import ROOT, record, rows, running
from jaxmu.published.rows import Outcome
from jaxmu.sweeps import design, graph, work
from tests.sweeps import small_sweep

FILE = """
from tests.sweeps import small_sweep

def get_config():
  return small_sweep.config({folder!r})
"""


def test_the_commit_is_named(load):
  commit = load('publish_study').commit()
  assert commit == '' or re.fullmatch('[0-9a-f]{40}[+]?', commit)


def test_a_name_is_needed(load, capsys):
  with pytest.raises(SystemExit) as end:
    load('publish_study').main(['--config=msg_resnet'])
  assert str(end.value.code) == 'error: no name; give one as --name=laptop'
  capsys.readouterr()


@pytest.mark.parametrize(
  ('argv', 'words'),
  [
    ([], '0 configurations; give one as --config='),
    (['--config=a', '--config=b'], '2 configurations; give one'),
    (
      ['--config=deep_unlearn', '--seconds=abc'],
      '--seconds=abc: give a number',
    ),
    (['--config=deep_unlearn', '--most=x'], '--most=x: give a number'),
    (
      ['--config=deep_unlearn', '--only=digits_resnet18/serch'],
      "did you mean 'digits_resnet18/search'?",
    ),
  ],
)
def test_a_mistake_is_named_in_one_line(
  load, monkeypatch, tmp_path, argv, words
):
  monkeypatch.setattr(job_command, 'set_up_jax', lambda config: None)
  with pytest.raises(SystemExit) as end:
    load('publish_study').main(
      ['--name=small', f'--published={tmp_path}', *argv]
    )
  assert str(end.value.code).startswith('error: ')
  assert words in str(end.value.code)


def test_numbers_of_changed_tables_are_named(load, tmp_path):
  outdated = load('publish_study').outdated
  for name in ('claims', 'laptop'):
    shutil.copytree(ROOT / name, tmp_path / name)
  assert outdated(tmp_path) == []
  shutil.rmtree(tmp_path / 'laptop' / 'digits_resnet18' / 'default')
  (line,) = outdated(tmp_path)
  assert line == (
    'claims: laptop/digits_resnet18/default is missing; '
    'python benchmarks/results_page.py computes it again'
  )


def test_a_job_without_its_search_does_not_hide_the_others(
  load, tmp_path, monkeypatch, capsys
):
  publish = load('publish_study')
  (tmp_path / 'results.json').touch()
  settings = types.SimpleNamespace(workdir=str(tmp_path))

  def jobs(sweep, only):
    name = only.removeprefix('cell/')
    if name == 'large_rate':
      raise ValueError('no setting of GA')
    return [(types.SimpleNamespace(name=name), settings)]

  monkeypatch.setattr(publish.claim_jobs, 'jobs', jobs)
  monkeypatch.setattr(
    publish.writing, 'table', lambda root, name, *_, **__: name
  )
  cell = types.SimpleNamespace(name='cell')
  found = publish._beside(tmp_path, {'name': 'study'}, [], None, cell)
  others = [job.name for job in publish.claim_jobs.JOBS]
  others.remove('large_rate')
  assert list(found) == [f'study/cell/{name}' for name in others]
  # It is no mistake unless it was asked for.
  assert capsys.readouterr().err == ''
  own = {'name': 'study', 'only': 'cell/large_rate'}
  assert not list(publish._beside(tmp_path, own, [], None, cell))
  line = 'cell/large_rate is left out: no setting of GA'
  assert line in capsys.readouterr().err


def test_a_refused_job_does_not_hide_the_others(
  load, tmp_path, monkeypatch, capsys
):
  publish = load('publish_study')
  (tmp_path / 'results.json').touch()
  settings = types.SimpleNamespace(workdir=str(tmp_path))
  monkeypatch.setattr(
    publish.claim_jobs, 'jobs', lambda sweep, only: [(None, settings)]
  )

  def table(root, name, settings, origin, *, most):
    if name.endswith('/default'):
      raise ValueError('the report was changed')
    return name, most

  monkeypatch.setattr(publish.writing, 'table', table)
  cell = types.SimpleNamespace(name='cell')
  own = {'name': 'study', 'most': '7'}
  found = list(publish._beside(tmp_path, own, [], None, cell))
  others = [job.name for job in publish.claim_jobs.JOBS]
  others.remove('default')
  assert found == [(f'study/cell/{name}', 7) for name in others]
  line = 'cell/default is left out: the report was changed'
  assert line in capsys.readouterr().err


def test_a_folder_without_finished_work_is_a_mistake(
  load, tmp_path, monkeypatch
):
  publish = load('publish_study')
  monkeypatch.setattr(job_command, 'set_up_jax', lambda config: None)
  with pytest.raises(SystemExit, match='error: nothing was published'):
    publish.main(
      [
        '--name=small',
        f'--published={tmp_path / "root"}',
        f'--workdir={tmp_path / "work"}',
        '--config=deep_unlearn:laptop',
        '--only=digits_resnet18/kde_disjoint',
      ]
    )


@pytest.mark.slow
def test_every_study_of_a_sweep_is_published(
  load, tmp_path, monkeypatch, capsys
):
  publish = load('publish_study')
  monkeypatch.setattr(job_command, 'set_up_jax', lambda config: None)
  folder, root = tmp_path / 'work', tmp_path / 'root'
  (tmp_path / 'sweep.py').write_text(FILE.format(folder=str(folder)))
  sweep = design.from_config(small_sweep.config(folder))
  assert not work.perform_all(sweep, graph.build(sweep), '')
  argv = [f'--config={tmp_path / "sweep.py"}', '--name=small']
  argv.append(f'--published={root}')
  publish.main(argv)
  found = record.find(root)
  names = {f'small/{study.name}' for study in sweep.studies}
  assert {*found} == names and len(names) == 4
  for one in found.values():
    record.check(one)
    assert one.record['seconds'] > 0
    assert f'--only={one.name.removeprefix("small/")}' in one.record['command']
    judged = running.judge(
      chosen := rows.rows(one), running.read(chosen, folder)
    )
    outcomes = {v.outcome for v in judged if not v.row.is_run_time}
    assert outcomes == {Outcome.PASS}
  # A search can run in parts, each with what the earlier ones have found.
  first, other = (f'digits_tiny/search/settings/{m}.json' for m in ('ft', 'ga'))
  before = record.find(root)['small/digits_tiny/search']
  parts = tmp_path / 'parts'
  shutil.copytree(before.folder, parts / 'small' / 'digits_tiny' / 'search')
  (parts / 'small' / other).unlink()
  rest = tmp_path / 'rest'
  changes = {'settings': str(parts / 'small'), 'studies': ('search', 'main')}
  later = design.from_config(small_sweep.config(rest, **changes))
  assert not work.perform_all(
    later, graph.build(later), 'digits_tiny/search/search/ga'
  )
  assert not (rest / 'digits_tiny' / 'search' / 'search' / 'ft').exists()
  (tmp_path / 'rest.py').write_text(FILE.format(folder=str(rest)))
  publish.main(
    [
      f'--config={tmp_path / "rest.py"}',
      f'--config.settings={parts / "small"}',
      *('--name=small', f'--published={parts}'),
      '--only=digits_tiny/search',
    ]
  )
  again = record.find(parts)['small/digits_tiny/search']
  assert {*again.chosen} == {*before.chosen}
  assert '--config.settings' not in again.record['command']
  assert again.chosen['ft'] == before.chosen['ft']
  assert again.chosen['ga']['hparams'] == before.chosen['ga']['hparams']
  # A table whose settings are not those of the published search is left out.
  path = root / 'small' / first
  content = json.loads(path.read_text())
  content['hparams']['learning_rate'] *= 2
  path.write_text(json.dumps(content))
  capsys.readouterr()
  with pytest.raises(SystemExit, match='nothing was published'):
    publish.main([*argv, '--only=digits_tiny/main'])
  told = capsys.readouterr().err
  assert 'digits_tiny/main is left out: its settings of ft are not' in told
  # What is not finished is named, and the rest is published.
  shutil.rmtree(folder / 'digits_tiny' / 'main' / 'store')
  shutil.rmtree(root)
  capsys.readouterr()
  publish.main(argv)
  assert 'digits_tiny/main is left out' in capsys.readouterr().err
  assert {*record.find(root)} == names - {'small/digits_tiny/main'}
