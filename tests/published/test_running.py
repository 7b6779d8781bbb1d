"""Published numbers against another run, a work directory, and changes."""

import csv
import dataclasses
import gzip
import json
import shutil

import numpy as np
import pytest

from jaxmu.published import record, rows, running, scores, writing
from jaxmu.published.rows import Outcome
from jaxmu.report import checksums, results
from jaxmu.study import job as job_lib
from jaxmu.study import run
from jaxmu.study import settings as settings_lib
from tests.published.conftest import ORIGIN, changed
from tests.study import small_job

pytestmark = pytest.mark.xdist_group('published')


def _choose(one, *patterns):
  known = rows.every([one])
  return rows.choose(known, [f'{one.name}/{p}' for p in patterns])


def _outcomes(chosen, found):
  return [one.outcome for one in running.judge(chosen, found)]


def test_one_method_alone_gives_the_numbers_of_the_whole_job(table, tmp_path):
  """Draws are keyed by name: fewer methods change no bit of a number."""
  chosen = _choose(table.one, 'ft', 'original', 'retrained')
  chosen = [r for r in chosen if not r.is_run_time and not r.needs_all]
  told = []
  found = running.rerun(chosen, tmp_path, told.append)
  assert found.differences == []
  assert len(chosen) > 50
  for row in chosen:
    np.testing.assert_equal(found.numbers[row.method, row.metric], row.value)
  assert {*_outcomes(chosen, found)} == {Outcome.PASS}
  assert not any(method == 'msg' for method, _ in found.numbers)
  stored = {p.name.partition('-')[0] for p in tmp_path.rglob('store/models/*')}
  assert stored == {'original', 'retrain', 'ft'}
  (line,) = told
  assert 'training 6 original, 12 retrain, 12 ft models' in line
  assert 'about' in line
  # A second time nothing is trained.
  again = running.rerun(chosen[:1], tmp_path, told.append)
  assert 'all models are in' in told[-1]
  assert again.numbers[chosen[0].method, chosen[0].metric] == chosen[0].value


@pytest.mark.parametrize('chosen', [(), ('ft',), ('msg', 'ft')])
def test_addresses_of_models_do_not_depend_on_other_methods(
  table, tmp_path, chosen
):
  """An address covers all that models depend on, their draws included."""
  job = job_lib.open_job(record.settings(table.one, tmp_path, chosen))
  known = table.one.record['models']
  assert {*job.populations} == {'original', 'retrain', *chosen}
  for name, population in job.populations.items():
    assert population.digest == known[name]['address']


def test_baselines_need_no_method(table, tmp_path):
  chosen = _choose(table.one, 'retrained/ulira_auc')
  assert running._unlearners(table.one, chosen) == []
  link = tmp_path / 'tables' / 'small'
  shutil.copytree(table.work, link)
  told = []
  found = running.rerun(chosen, tmp_path, told.append)
  assert _outcomes(chosen, found) == [Outcome.PASS]
  assert told == [f'tables/small: all models are in {link}']


def test_ranks_alone_need_all_methods(table):
  row = table_row(table)
  rank = dataclasses.replace(row, metric='rank_ret_dev')
  assert running._unlearners(table.one, [rank]) == ['msg', 'ft']
  assert running._unlearners(table.one, [rank, row]) == ['msg']
  found = running.Found({('msg', 'fa'): row.value}, [])
  verdicts = running.judge([rank, row], found)
  assert [v.outcome for v in verdicts] == [Outcome.OPEN, Outcome.PASS]
  assert verdicts[0].note == 'needs all methods: name it'


def table_row(table):
  return _choose(table.one, 'msg/fa')[0]


def test_a_wrong_number_fails(table):
  row = table_row(table)
  wrong = dataclasses.replace(row, value=row.value + 1e-4)
  found = running.read([row, wrong], table.work)
  assert _outcomes([row, wrong], found) == [Outcome.PASS, Outcome.FAIL]


def test_run_times_are_measured_where_they_are_asked_for(table, tmp_path):
  shutil.copytree(table.work, tmp_path / 'tables' / 'small')
  chosen = _choose(table.one, 'msg/rte', 'msg/rte_counted')
  found = running.rerun(chosen, tmp_path, lambda line: None)
  assert _outcomes(chosen, found) == [Outcome.PASS, Outcome.OPEN]
  assert found.numbers['msg', 'rte'] > 0


@pytest.mark.parametrize('up', [0, 1, 2])
def test_a_work_directory_is_that_of_the_job_or_above(table, up):
  folder = [table.work, *table.work.parents][up]
  chosen = _choose(table.one, '*')
  found = running.read(chosen, folder)
  assert found.differences == []
  judged = running.judge(chosen, found)
  assert {one.outcome for one in judged} == {Outcome.PASS, Outcome.OPEN}
  assert all(v.row.is_run_time for v in judged if v.outcome is Outcome.OPEN)


def test_no_work_directory_is_named(table, tmp_path):
  with pytest.raises(ValueError, match='has no results.json of tables/small'):
    running.read(_choose(table.one, 'msg/fa'), tmp_path)


def test_a_changed_configuration_is_named(table):
  configuration = json.loads(json.dumps(table.one.record['configuration']))
  configuration['train']['num_epochs'] = 3
  configuration['run']['verify'] = False  # changes no number
  configuration['unlearners'][1]['hparams']['learning_rate'] = 0.5  # of ft
  other = changed(table.one, configuration=configuration)
  with pytest.raises(ValueError) as error:
    running.read(_choose(other, 'msg/fa'), table.work)
  text = str(error.value)
  assert 'train.num_epochs = 2 (published: 3)' in text
  assert 'verify' not in text and 'learning_rate' not in text
  with pytest.raises(ValueError, match='unlearn.ft.learning_rate = '):
    running.read(_choose(other, 'ft/fa'), table.work)


@pytest.mark.parametrize('how', ['rerun', 'read'])
@pytest.mark.parametrize('what', ['data', 'splits'])
def test_other_data_or_splits_are_refused_before_training(
  table, tmp_path, how, what
):
  facts = {**table.one.record[what]}
  if what == 'data':
    facts['fingerprint'] = 'f' * 64
  elif how == 'rerun':
    facts['forget'] = 'f' * 64
  else:
    facts, what = {**table.one.record['data'], 'splits': 'f'}, 'data'
  chosen = _choose(changed(table.one, **{what: facts}), 'msg/fa')
  with pytest.raises(ValueError, match='data set|index sets'):
    if how == 'read':
      running.read(chosen, table.work)
    else:
      running.rerun(chosen, tmp_path, lambda line: None)
  assert not [*tmp_path.rglob('shard_*')]


def test_another_environment_is_named_and_widens_the_tolerance(table):
  versions = {**table.one.record['versions'], 'jax': '0.0.1'}
  other = changed(table.one, versions=versions)
  chosen = _choose(other, 'msg/ulira_auc')
  found = running.read(chosen, table.work)
  assert [d.endswith('(published: 0.0.1)') for d in found.differences] == [True]
  (verdict,) = running.judge(chosen, found)
  assert verdict.note == 'half its interval'
  assert verdict.tolerance > 0.01


def test_changed_code_is_another_environment(table):
  models = json.loads(json.dumps(table.one.record['models']))
  models['msg']['address'] = '0' * 12
  other = changed(table.one, models=models)
  found = running.read(_choose(other, 'msg/fa'), table.work)
  assert found.differences == ['code or shards of msg']
  assert running.read(_choose(other, 'ft/fa'), table.work).differences == []


def test_numbers_from_published_scores(table):
  chosen = _choose(table.one, '*/ulira_auc', 'msg/excess_ulira_auc')
  found = running.from_scores(chosen)
  judged = running.judge(chosen, found, from_scores=True)
  assert len(judged) == 5
  assert {one.outcome for one in judged} == {Outcome.PASS}
  assert {one.note for one in judged} == {'rounded scores'}
  row = chosen[0]
  wrong = dataclasses.replace(row, value=row.value + 0.005)
  (verdict,) = running.judge([wrong], found, from_scores=True)
  assert verdict.outcome is Outcome.FAIL
  with pytest.raises(ValueError, match='fa is no number of an attack'):
    running.from_scores(_choose(table.one, 'msg/fa'))
  without = changed(table.one, scores=None)
  with pytest.raises(ValueError, match='has no published scores'):
    running.from_scores(_choose(without, 'msg/ulira_auc'))


@pytest.mark.slow
def test_a_search_of_one_method_chooses_as_that_of_several(search, tmp_path):
  chosen = _choose(search.one, 'ga')
  assert [row.metric for row in chosen] == [
    'norm_chosen',
    'norm_default',
    'norm_original',
  ]
  told = []
  found = running.rerun(chosen, tmp_path, told.append)
  assert found.differences == []
  assert [found.numbers['ga', r.metric] for r in chosen] == [
    row.value for row in chosen
  ]
  assert 'searching ga (' in told[-1]
  assert not (tmp_path / 'search' / 'search' / 'ft').exists()
  read = running.read(chosen, tmp_path)
  assert read == found._replace(numbers=read.numbers)
  assert _outcomes(chosen, read) == [Outcome.PASS] * 3


@pytest.mark.slow
def test_a_search_is_published_in_parts(search, tmp_path):
  root = tmp_path / 'root'
  shutil.copytree(search.root, root)
  work = tmp_path / 'work'
  shutil.copytree(search.work / 'search' / 'ft', work / 'search' / 'ft')
  settings = dataclasses.replace(search.settings, workdir=str(work))
  one = writing.search(root, 'search', settings, ORIGIN)
  record.check(one)
  assert one.chosen == search.one.chosen
  assert search.one.record['seconds'] == ORIGIN.seconds
  assert one.record['seconds'] is None  # ORIGIN has that of the last part
  trials = writing.TRIALS
  assert (one.folder / trials).read_bytes() == (
    search.one.folder / trials
  ).read_bytes()
  nothing = dataclasses.replace(settings, workdir=str(tmp_path / 'nothing'))
  with pytest.raises(ValueError, match='nothing has no settings of a finished'):
    writing.search(root, 'search', nothing, ORIGIN)
  # What was damaged since does not get new checksums.
  path = one.folder / 'settings' / 'ga.json'
  path.write_text(path.read_text().replace('"momentum": 0.9', '"momentum": 0'))
  with pytest.raises(ValueError, match='settings/ga.json changed after it was'):
    writing.search(root, 'search', settings, ORIGIN)


@pytest.mark.slow
def test_trials_of_a_method_without_a_setting_are_published(search, tmp_path):
  work = tmp_path / 'work'
  shutil.copytree(search.work / 'search', work / 'search')
  folder = work / 'search' / 'ga'
  (folder / 'settings.json').unlink()
  trials = folder / 'trials.csv'
  whole = trials.read_text()
  failed = whole.replace(',complete,', ',failed at epoch 0,')
  settings = dataclasses.replace(search.settings, workdir=str(work))
  for text, lost in (
    (failed, ['ga']),
    (whole, []),  # its choice is left to make
    ('\n'.join(failed.splitlines()[:-1]), []),  # a trial is left to run
  ):
    trials.write_text(text)
    root = tmp_path / f'root{len(text)}'
    one = writing.search(root, 'search', settings, ORIGIN)
    assert one.record['no_setting'] == lost and [*one.chosen] == ['ft']
    with gzip.open(one.folder / writing.TRIALS, 'rt', newline='') as file:
      found = [
        row['state'] for row in csv.DictReader(file) if row['method'] == 'ga'
      ]
    assert found == ['failed at epoch 0'] * 2 * len(lost)
  # The next part of the search keeps them.
  root = tmp_path / f'root{len(failed)}'
  shutil.rmtree(folder)
  one = writing.search(root, 'search', settings, ORIGIN)
  assert one.record['no_setting'] == ['ga']


@pytest.mark.slow
def test_a_search_with_another_budget_is_refused(search):
  chosen = _choose(search.one, 'ft')
  assert (
    _outcomes(chosen, running.read(chosen, search.work)) == [Outcome.PASS] * 3
  )
  setting = json.loads(json.dumps(search.one.chosen))
  setting['ft']['search']['trials'] = 7
  other = changed(search.one)
  other.__dict__['chosen'] = setting
  with pytest.raises(ValueError, match=r'search.trials = 2 \(published: 7\)'):
    running.read(_choose(other, 'ft'), search.work)
  setting['ft']['search']['trials'] = 2
  setting['ft']['originals'] = '0' * 12
  with pytest.raises(ValueError, match='seeds, splits'):
    running.read(_choose(other, 'ft'), search.work)


@pytest.mark.slow
def test_replicates_are_jobs_with_other_seeds(tmp_path):
  config = small_job.config(tmp_path / 'job').to_dict()
  numbers = []
  for seed in (3, 4):
    config['seed'] = config['splits']['seed'] = seed
    config['workdir'] = str(tmp_path / f'job_{seed}')
    run.run(settings_lib.from_config(config))
    for row in results.read_csv(tmp_path / f'job_{seed}' / 'results.csv'):
      if (row.method, row.metric) in (('retrain', 'ulira_auc'),):
        numbers.append(dataclasses.replace(row, method=str(seed)))
  config['seed'] = config['splits']['seed'] = 3
  root = tmp_path / 'published'
  one = writing.replicates(
    *(root, 'null/small', settings_lib.from_config(config), numbers),
    *(('seed', 'splits.seed'), ORIGIN),
  )
  assert [r.name for r in rows.rows(one)] == [
    f'null/small/ulira_auc{end}' for end in ('', '/coverage', '/3', '/4')
  ]
  seed = _choose(one, 'ulira_auc/4')
  found = running.rerun(seed, tmp_path / 'again', lambda line: None)
  assert found.numbers['4', 'ulira_auc'] == numbers[1].value
  assert not (tmp_path / 'again' / 'null' / 'small' / 'seed_3').exists()
  chosen = _choose(one, '*')
  found = running.rerun(chosen, tmp_path / 'again', lambda line: None)
  assert _outcomes(chosen, found) == [Outcome.PASS] * 4


def test_a_report_of_another_configuration_is_not_published(table, tmp_path):
  config = settings_lib.config_of(dataclasses.asdict(table.settings))
  config['train'] = {**config['train'], 'num_epochs': 3}
  with pytest.raises(ValueError, match='not that of this configuration'):
    writing.table(tmp_path, 'small', settings_lib.from_config(config), ORIGIN)
  assert not [*tmp_path.rglob('record.json')]


def test_a_changed_report_is_not_published(table, tmp_path):
  copy = tmp_path / 'copy'
  shutil.copytree(table.work, copy)
  config = settings_lib.config_of(dataclasses.asdict(table.settings))
  settings = settings_lib.from_config({**config, 'workdir': str(copy)})
  writing.finished_job(settings)
  path = copy / 'results.csv'
  path.write_text(path.read_text().replace('0.', '0.1', 1))
  with pytest.raises(ValueError, match='or was changed'):
    writing.table(tmp_path / 'out', 'small', settings, ORIGIN)


def test_methods_that_the_report_lacks_are_left_out(table):
  config = settings_lib.config_of(dataclasses.asdict(table.settings))
  more = settings_lib.from_config(
    {**config, 'compare': {**config['compare'], 'ga': {}}}
  )
  job, _ = writing.finished_job(more)
  assert [*job.populations] == ['original', 'retrain', 'msg', 'ft']
  fewer = dataclasses.replace(more, unlearners=more.unlearners[:1])
  with pytest.raises(ValueError, match='not that of this configuration'):
    writing.finished_job(fewer)


def test_scores_beyond_the_size_are_listed(table, tmp_path):
  size = (table.one.folder / 'scores' / 'ft.npz').stat().st_size
  sizes = {n: len(c) for n, c in _content(table).items()}
  one = writing.table(
    *(tmp_path, 'small', table.settings, ORIGIN),
    most=sum(sizes.values()) - 1,
  )
  (left,) = one.record['left_out']
  assert (left['file'], left['bytes']) == ('scores/ft.npz', size)
  assert left['command'] == ORIGIN.command
  chosen = _choose(one, 'ft/ulira_auc')
  with pytest.raises(ValueError, match='scores of ft are not published'):
    running.from_scores(chosen)


def _content(table):
  return scores.compact(job_lib.open_job(table.settings))


def test_the_record_has_what_the_numbers_depend_on(table):
  one = table.one
  record.check(one)
  assert [*record.find(table.root)] == [one.name]
  content = one.record
  assert content['configuration']['workdir'] == 'tables/small'
  assert str(table.work) not in (one.folder / record.FILE).read_text()
  assert {'python', 'jax', 'numpy', 'flax', 'optax', 'jaxmu'} <= {
    *content['versions']
  }
  assert content['seconds'] == 20.0 and content['planned_seconds'] is None
  assert content['data']['fingerprint'] and len(content['splits']) == 6
  assert content['models']['msg']['number'] == 12
  again = record.settings(one, table.work)
  assert again == table.settings
  for name in ('results.csv', 'per_cluster.csv', 'timing.csv', 'curves.csv'):
    same = (table.work / name).read_bytes()
    assert (one.folder / name).read_bytes() == same


@pytest.mark.parametrize('how', ['changed', 'removed', 'added', 'unlisted'])
def test_a_damaged_folder_is_named(table, tmp_path, how):
  shutil.copytree(table.root, tmp_path / 'root')
  one = record.find(tmp_path / 'root')[table.one.name]
  record.check(one)
  path = one.folder / 'scores' / 'msg.npz'
  if how == 'changed':
    path.write_bytes(path.read_bytes()[:-1] + b'x')
  elif how == 'removed':
    path.unlink()
  elif how == 'added':
    (one.folder / 'scores' / 'more.npz').write_bytes(b'')
  else:
    checksums.remove(one.folder)
  with pytest.raises(ValueError, match='msg.npz|more.npz|SHA256SUMS'):
    record.check(one)


def test_a_cut_record_is_named_with_the_remedy(table, tmp_path):
  shutil.copytree(table.root, tmp_path / 'root')
  path = tmp_path / 'root' / table.one.name / record.FILE
  path.write_bytes(path.read_bytes()[:200])
  words = f'{table.one.name}: {record.FILE} is damaged.*install jaxmu again'
  with pytest.raises(ValueError, match=words):
    record.find(tmp_path / 'root')


def test_records_are_checked(table, tmp_path):
  shutil.copytree(table.root, tmp_path / 'root')
  path = tmp_path / 'root' / table.one.name / record.FILE
  checksums.remove(path.parent)
  good = json.loads(path.read_text())
  for fields, message in (
    ({'kind': 'tabel'}, "kind = 'tabel'"),
    ({'name': 'other'}, "the record of 'other'"),
    ({'seconds': ...}, 'has no seconds'),
    ({'no_setting': 'ff'}, "no_setting = 'ff' is no list"),
  ):
    bad = {k: v for k, v in {**good, **fields}.items() if v is not ...}
    path.write_text(json.dumps(bad))
    with pytest.raises(ValueError, match=message):
      record.find(tmp_path / 'root')
