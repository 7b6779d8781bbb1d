"""A search on a tiny network: what is judged, and what is shipped."""

import csv
import json
import shutil

import numpy as np
import pytest

from jaxmu import hparams as hp
from jaxmu import methods
from jaxmu.study import job as job_lib
from jaxmu.study import settings as settings_lib
from jaxmu.study import tuned
from jaxmu.tuning import driver, opening
from tests.study import small_job

pytestmark = pytest.mark.xdist_group('shipped')


def _settings(folder):
  config = small_job.config(folder).to_dict()
  config['splits'].update(design='main', pool=0, num_splits=1, forget_sets=1)
  config['unlearn'] = {
    'method': 'ft',
    'hparams': {**hp.defaults(methods.get('ft').Hparams), 'num_epochs': 1},
  }
  config['search'] = {
    **{'trials': 4, 'initialisations': 1, 'sampler': 'random'},
    **{'judges': 2, 'finalists': 2, 'grid': {}},
    'space': {'batch_size': 64, 'num_epochs': (1, 2)},
  }
  return settings_lib.from_config(config)


@pytest.fixture(scope='module')
def searched(tmp_path_factory):
  folder = tmp_path_factory.mktemp('shipped')
  settings = _settings(folder)
  (found,) = driver.run(settings)
  return folder, settings, found


@pytest.fixture
def sizes(searched):
  _, settings, _ = searched
  job = job_lib.open_job(
    opening.search_settings(settings), opening.search_design
  )
  return job.sizes


@pytest.mark.slow
def test_finalists_are_judged_as_in_a_search_and_from_the_store(load, searched):
  compare = load('search_samplers')
  folder, settings, found = searched
  before = {p: p.stat().st_mtime_ns for p in folder.glob('store/search/*/*')}
  judge = compare.Judge(settings, 'ft')
  finalists = [found.rows[p].setting for p in found.choice.finalists]
  default = found.space.nearest(hp.defaults(methods.get('ft').Hparams))
  means = judge.norms([*finalists, default])
  np.testing.assert_array_equal(means, found.choice.means)
  after = {p: p.stat().st_mtime_ns for p in folder.glob('store/search/*/*')}
  assert after == before  # nothing was trained again
  row = compare.search_row(found.rows, judge, settings.search.finalists)
  assert row['norm'] == means[:-1].min()


@pytest.mark.slow
def test_shipped_settings_are_found_by_jobs(
  load, searched, sizes, tmp_path, monkeypatch
):
  shipped = load('shipped')
  folder, _, found = searched
  read = shipped.read(folder, ['ft'])
  monkeypatch.setattr(tuned, 'SHIPPED', tmp_path / 'tuned')
  where = shipped.write(tuned.SHIPPED, read, sizes)
  assert where == tuned.SHIPPED / 'digits_tiny'
  setting = tuned.find(
    'tuned',
    method='ft',
    data='digits',
    model='tiny',
    workdir=tmp_path,
    expected={},
  )
  assert setting == found.choice.setting


@pytest.mark.slow
def test_the_log_has_every_trial_and_the_same_bytes_each_time(
  load, searched, sizes, tmp_path
):
  shipped = load('shipped')
  folder, _, found = searched
  read = shipped.read(folder, ['ft'])
  first = shipped.write(tmp_path / 'a', read, sizes)
  second = shipped.write(tmp_path / 'b', read, sizes)
  for path in first.iterdir():
    assert path.read_bytes() == (second / path.name).read_bytes()
  log = shipped.read_log(first)
  assert len(log) == len(found.rows)
  for text, row in zip(log, found.rows, strict=True):
    assert text['method'] == row.method and text['state'] == row.state
    assert shipped.setting_of('ft', text) == dict(row.setting)
    assert float(text['norm']) == pytest.approx(row.norm, rel=1e-5)
  with (first / shipped.SUMMARY).open(newline='') as file:
    (summary,) = csv.DictReader(file)
  assert summary['trials'] == '4' and summary['programs'] == '1'
  work = sum(methods.get('ft').card.cost(r.setting, sizes) for r in found.rows)
  assert float(summary['forward_equivalents']) == pytest.approx(work, abs=1)
  epochs = sum(row.setting['num_epochs'] for row in found.rows)
  assert summary['epochs'] == str(epochs)


@pytest.mark.slow
def test_unfinished_and_unequal_searches_are_not_shipped(
  load, searched, tmp_path
):
  shipped = load('shipped')
  with pytest.raises(ValueError, match='finish the search of ct'):
    shipped.read(searched[0], ['ft', 'ct'])
  shutil.copytree(searched[0] / 'search', tmp_path / 'search')
  shutil.copytree(tmp_path / 'search' / 'ft', tmp_path / 'search' / 'ct')
  path = tmp_path / 'search' / 'ct' / tuned.NAME
  content = json.loads(path.read_text())
  content['method'] = 'ct'
  content['search']['trials'] = 5
  path.write_text(json.dumps(content))
  with pytest.raises(ValueError, match='differ in config.search.trials'):
    shipped.read(tmp_path, ['ft', 'ct'])


def test_every_shipped_setting_is_a_trial_of_its_log(load):
  shipped = load('shipped')
  for folder in sorted(tuned.SHIPPED.glob('*/')):
    log = shipped.read_log(folder)
    for path in sorted(folder.glob('*.json')):
      content = tuned.read(path)
      name = content['method']
      assert path.stem == name
      own = [row for row in log if row['method'] == name]
      tried = [shipped.setting_of(name, row) for row in own]
      norms = content['norms']
      default_won = norms['chosen'] == norms['default']
      assert default_won or content['hparams'] in tried
