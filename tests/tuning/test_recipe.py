"""The search of the recipe that trains the original models."""

import csv
import importlib
import json
import warnings

import numpy as np
import optuna
import pytest

import jaxmu
from jaxmu import main as job_command
from jaxmu import methods, population
from jaxmu.api import jobs
from jaxmu.cli import arguments
from jaxmu.report import progress
from jaxmu.study import job as job_lib
from jaxmu.study import settings as settings_lib
from jaxmu.study import stages
from jaxmu.tuning import opening, plan, records
from tests.tuning import small_search

pytestmark = pytest.mark.xdist_group('search')

TINY = {
  'model.options': {},
  'splits.pool': 400,
  'splits.num_splits': 4,
  'train.num_epochs': 1,
  'run.shard': 4,
  'run.devices': 2,
  'run.chunk': 1,
}


@pytest.fixture(scope='module')
def found(tmp_path_factory):
  return jaxmu.search(
    'original',
    model='tiny',
    workdir=tmp_path_factory.mktemp('recipe'),
    overrides=TINY,
    space={'num_epochs': (1, 2), 'learning_rate': 'log(1e-2, 1)'},
    trials=3,
    initialisations=2,
    finalists=2,
    judges=1,
  )


def _config(found, **changes):
  folder = found.folder.parents[1]
  overrides = {**TINY, **changes}
  return jobs.make_config(
    'ft', model='tiny', workdir=folder, overrides=overrides
  )


def _settings(tmp_path, *, search, **sections):
  config = small_search.config(tmp_path) | sections
  config['search'] |= {'training': True, **search}
  return settings_lib.from_config(config)


def test_trials_minimise_the_validation_error(found):
  assert len(found.trials) == 6
  for row in found.trials:
    assert row.objectives == (1 - row.val,) and row.norm == 1 - row.val
    assert row.setting['batch_size'] == 64 and row.setting['momentum'] == 0.9
    assert 0.01 <= row.setting['learning_rate'] <= 1
    assert 1e-5 <= row.setting['weight_decay'] <= 1e-2
  assert {row.setting['num_epochs'] for row in found.trials} <= {1, 2}
  assert found.norms.keys() == {'chosen', 'default'}
  assert 'validation error' in repr(found)
  # Nothing else was trained.
  assert not (found.folder.parents[1] / 'store' / 'models').exists()


def test_its_files_name_its_objective(found):
  with (found.folder / 'trials.csv').open() as file:
    rows = list(csv.DictReader(file))
  assert [float(row['objective_error']) for row in rows] == [
    row.norm for row in found.trials
  ]
  assert 'objective_retain' not in rows[0]
  page = (found.folder / 'report.html').read_text()
  assert 'Unlike the reference, which fixes the recipe' in page
  assert 'original models.</' not in page
  assert found.plot('history').axes
  with pytest.raises(ValueError, match="no picture 'front'"):
    found.plot('front')
  path = found.folder.parent / records.JOURNAL
  backend = optuna.storages.journal.JournalFileBackend(str(path))
  study = optuna.load_study(
    study_name='original-1', storage=optuna.storages.JournalStorage(backend)
  )
  assert study.metric_names == ['error']
  assert [t.value for t in study.trials] == [r.norm for r in found.trials[3:]]


def test_a_trial_is_the_original_model_of_a_job_with_its_recipe(found):
  row = max(found.trials, key=lambda row: row.norm)
  settings = settings_lib.from_config(
    _config(
      found,
      **{f'train.{name}': value for name, value in row.setting.items()},
      **{'search.initialisations': 2, 'search.judges': 1},
    )
  )
  job = job_lib.open_job(
    opening.search_settings(settings), opening.search_design
  )
  trainer = population.Trainer(methods.get('original'), job.task, job.layout)
  with progress.Progress() as bars:
    stages.train(job, 'original', trainer, bars)
  models = stages.read_models(
    job, job.populations['original'], np.array([row.initialisation])
  )
  predicted = population.Predictor(job.task, job.layout).run(models)
  correct = np.asarray(predicted.correct)[0]
  assert correct[job.design.val].mean() == row.val
  assert correct[job.design.retain[row.initialisation]].mean() == row.retain


def test_a_job_reads_the_recipe(found, tmp_path):
  for name in ('tuned', str(found.folder / 'settings.json')):
    with warnings.catch_warnings():
      # That the search had another recipe is no difference.
      warnings.simplefilter('error')
      settings = settings_lib.from_config(_config(found, train=name))
    assert settings.train == found.setting
  config = {**_config(found), 'workdir': str(tmp_path)}
  arguments.set_field(config, 'config.train', 'tuned')
  with pytest.raises(ValueError, match='config.train = .tuned.: there are no'):
    settings_lib.from_config(config)
  arguments.set_field(config, 'config.train', 'tunde')
  with pytest.raises(ValueError, match="config.train = 'tunde'; give a sect"):
    settings_lib.from_config(config)
  with pytest.raises(ValueError, match='config.train is a value'):
    arguments.set_field(config, 'config.train.num_epochs', '3')
  content = json.loads((found.folder / 'settings.json').read_text())
  other = tmp_path / 'other.json'
  other.write_text(json.dumps({**content, 'method': 'retrain'}))
  arguments.set_field(config, 'config.train', str(other))
  with pytest.raises(ValueError, match='holds settings of retrain'):
    settings_lib.from_config(config)


@pytest.mark.parametrize(
  'search, words',
  [
    ({'sampler': 'reference'}, "fixes the training recipe; choose 'tpe'"),
    (
      {'space': {'learning_rate': 0.1}},
      'that of unlearning methods; .* config.search.space.original.learning',
    ),
    (
      {'space': {'original': {'lr': 0.1}}},
      "space.original.lr is unknown; did you mean 'learning_rate'",
    ),
  ],
)
def test_what_a_recipe_cannot_have_is_refused(tmp_path, search, words):
  with pytest.raises(ValueError, match=words) as error:
    plan.text(_settings(tmp_path, search=search))
  assert '\n' not in str(error.value)


def test_originals_from_checkpoints_have_no_recipe_to_search(tmp_path):
  settings = _settings(
    tmp_path, search={}, originals={'checkpoints': 'seed*.pth'}
  )
  with pytest.raises(ValueError, match='checkpoints = .* training; leave it e'):
    plan.text(settings)


def test_methods_and_the_recipe_have_their_own_spaces(tmp_path):
  space = {'batch_size': 64, 'original': {'learning_rate': (0.1, 0.2)}}
  recipe = _settings(tmp_path, search={'space': space})
  (one,) = opening.targets(recipe)
  assert list(opening.method_space(recipe, one).searched) == [
    'learning_rate',
    'weight_decay',
  ]
  unlearning = _settings(
    tmp_path, search={'space': {'batch_size': 64}, 'training': False}
  )
  (one,) = opening.targets(unlearning)
  assert one.method == 'ft'
  found = opening.method_space(unlearning, one)
  assert found.fixed['batch_size'] == 64 and 'learning_rate' in found.searched
  grid = {'original': {'learning_rate': (0.1, 0.2), 'momentum': (0.8, 0.9)}}
  text = plan.text(_settings(tmp_path, search={'grid': grid}))
  assert '8 trials: 4 for each of 2 initialisations, all of a grid' in text


@pytest.mark.parametrize('field', ['space', 'grid'])
def test_a_search_of_methods_has_no_space_of_the_recipe(tmp_path, field):
  given = {'original': {'no_such_name': (0.1, 0.2)}}
  settings = _settings(tmp_path, search={field: given, 'training': False})
  words = f'search.{field}.original is for .* recipe; add --training, or'
  with pytest.raises(ValueError, match=words) as error:
    plan.text(settings)
  assert '\n' not in str(error.value)


def test_the_command_plans_the_search_of_a_recipe(
  tmp_path, capsys, monkeypatch
):
  # JAX has started in this process.
  monkeypatch.setattr(job_command, 'set_up_jax', lambda config: None)
  command = importlib.import_module('jaxmu.search')
  fields = {**TINY, 'model.name': 'tiny', 'workdir': tmp_path}
  del fields['model.options']
  command.main(
    [
      *('--config=ft_resnet', '--training', '--plan'),
      *(f'--config.{name}={value}' for name, value in fields.items()),
      '--config.search.judges=1',
    ]
  )
  text = capsys.readouterr().out
  assert 'original       300 trials: 100 for each of 3 initialisations' in text
  assert 'learning_rate in [0.001, 1], logarithmic' in text
  assert 'retrain' not in text and '\nft ' not in text
  assert not (tmp_path / 'store').exists()
