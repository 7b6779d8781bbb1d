"""A whole search on a tiny network: values, programs, resuming, files."""

import csv
import dataclasses
import json
import pathlib
import shutil
import types
import warnings

import jax
import numpy as np
import optuna
import pytest

from jaxmu import hparams as hp
from jaxmu import methods, metrics, population
from jaxmu.api import jobs
from jaxmu.data import splits
from jaxmu.metrics.interface import Evaluated
from jaxmu.report import progress
from jaxmu.study import execution, recipes, stages, store, tuned
from jaxmu.study import job as job_lib
from jaxmu.study import settings as settings_lib
from jaxmu.tuning import (
  driver,
  judging,
  opening,
  plan,
  records,
  spaces,
  trials,
)
from jaxmu.types import Split
from tests.study import small_job
from tests.tuning import small_search

pytestmark = pytest.mark.xdist_group('search')

RATES = (1e-3, 1e-2, 1e-1, 1e30)


@pytest.fixture(scope='module')
def finished(tmp_path_factory):
  folder = tmp_path_factory.mktemp('search')
  (found,) = driver.run(small_search.settings(folder))
  return folder, found


@pytest.fixture
def folder(finished, tmp_path) -> pathlib.Path:
  copy = tmp_path / 'search'
  shutil.copytree(finished[0], copy)
  return copy


def test_every_trial_is_a_row(finished):
  folder, found = finished
  with (folder / 'search' / 'ft' / 'trials.csv').open() as file:
    rows = list(csv.DictReader(file))
  assert [(r['initialisation'], r['number']) for r in rows] == [
    (str(k), str(n)) for k in range(2) for n in range(4)
  ]
  assert [float(r['norm']) for r in rows] == [row.norm for row in found.rows]
  assert {r['num_epochs'] for r in rows} == {'1', '2'}
  for name in ('report.html', 'settings.json', 'plots/search_history.png'):
    assert (folder / 'search' / 'ft' / name).stat().st_size > 1000 or (
      name == 'settings.json'
    )


def test_one_program_serves_all_trials(finished):
  assert finished[1].programs == 1


def test_optuna_opens_the_same_trials(finished):
  folder, found = finished
  storage = optuna.storages.JournalStorage(
    optuna.storages.journal.JournalFileBackend(
      str(folder / 'search' / 'optuna.journal')
    )
  )
  for k in range(2):
    study = optuna.load_study(study_name=f'ft-{k}', storage=storage)
    own = [row for row in found.rows if row.initialisation == k]
    assert [tuple(t.values) for t in study.trials] == [
      row.objectives for row in own
    ]


def test_the_chosen_setting_is_read_by_a_job(finished):
  folder, found = finished
  config = small_search.config(folder)
  config['unlearn']['hparams'] = 'tuned'
  with warnings.catch_warnings():
    warnings.simplefilter('error')  # the search was that of this job
    (one,) = settings_lib.from_config(config).unlearners
  assert one.hparams == found.choice.setting
  config['unlearn']['hparams'] = str(found.path)
  (one,) = settings_lib.from_config(config).unlearners
  assert one.hparams == found.choice.setting


def test_tuned_settings_of_another_model_or_recipe_are_warned_of(tmp_path):
  config = recipes.job_config('ft')
  config['workdir'] = str(tmp_path)
  config['unlearn']['hparams'] = 'tuned'
  with warnings.catch_warnings():
    warnings.simplefilter('error')
    (searched,) = settings_lib.from_config(config).unlearners
  config['model']['options'] = {'width': 16, 'conv': 'auto'}
  config['train']['num_epochs'] = 24
  words = (
    r'ft.json was searched with config.model.options.conv = unset \(the job: '
    r'auto\), config.model.options.width = 8 \(the job: 16\), '
    r'config.train.num_epochs = 12 \(the job: 24\); search again'
  )
  with pytest.warns(UserWarning, match=words) as record:
    (one,) = settings_lib.from_config(config).unlearners
  assert one.hparams == searched.hparams
  assert [str(w.message).count('\n') for w in record] == [0]
  # A file that was written by hand has neither.
  content = json.loads((tuned.SHIPPED / tuned.DIGITS / 'ft.json').read_text())
  del content['model_options'], content['train']
  config['unlearn']['hparams'] = str(tmp_path / 'mine.json')
  (tmp_path / 'mine.json').write_text(json.dumps(content))
  with warnings.catch_warnings():
    warnings.simplefilter('error')
    settings_lib.from_config(config)


def test_tuned_settings_of_something_else_are_refused(finished, tmp_path):
  folder, found = finished
  config = small_search.config(folder)
  config['unlearn']['hparams'] = 'tuned'
  config['workdir'] = str(tmp_path)
  with pytest.raises(ValueError, match='there are no tuned settings of ft'):
    settings_lib.from_config(config)
  config['unlearn'] = {'method': 'ct', 'hparams': str(found.path)}
  with pytest.raises(ValueError, match='holds settings of ft'):
    settings_lib.from_config(config)
  other = json.loads(found.path.read_text())
  (tmp_path / 'other.json').write_text(json.dumps({**other, 'data': 'mnist'}))
  config['unlearn'] = {'method': 'ft', 'hparams': f'{tmp_path}/other.json'}
  with pytest.raises(ValueError, match='holds settings for tiny on mnist'):
    settings_lib.from_config(config)


@pytest.mark.parametrize(
  'change, words',
  [
    ({'hparams': [1]}, r'hparams = \[1\]; give names and values'),
    ({'hparams': {}}, "hparams has no 'learning_rate'; add it"),
    ({'hparams': {'lr': 1}}, 'lr is unknown'),
    ({'hparams': {'learning_rate': np.nan}}, 'rate = nan; give a finite'),
    ({'method': ['ft']}, r"holds settings of \['ft'\]"),
    ({'model': None}, 'holds settings for None on digits'),
    (
      ['method', 'data', 'model', 'hparams'],
      'settings file of python -m jaxmu.search',
    ),
    ('method data model hparams', 'settings file of python -m jaxmu.search'),
    (None, 'settings file of python -m jaxmu.search'),
  ],
)
def test_a_settings_file_edited_by_hand_is_refused(
  finished, tmp_path, change, words
):
  content = change
  if isinstance(change, dict):
    content = {**json.loads(finished[1].path.read_text()), **change}
  (tmp_path / 'edited.json').write_text(json.dumps(content))
  config = small_search.config(tmp_path)
  config['unlearn']['hparams'] = str(tmp_path / 'edited.json')
  with pytest.raises(ValueError, match=f'edited.json.*{words}') as error:
    settings_lib.from_config(config)
  assert '\n' not in str(error.value)


def test_a_plug_in_takes_its_tuned_settings(finished, tmp_path):
  content = json.loads(finished[1].path.read_text())
  (tmp_path / 'mine.py').write_text(
    "from jaxmu.methods import ft\nMETHOD = ft.METHOD._replace(name='mine')\n"
  )
  tuned.write(
    tuned.folder(tmp_path, 'mine') / tuned.NAME, {**content, 'method': 'mine'}
  )
  config = small_search.config(tmp_path)
  config['unlearn'] = {
    'method': str(tmp_path / 'mine.py'),
    'hparams': 'tuned',
  }
  (one,) = settings_lib.from_config(config).unlearners
  assert one.hparams == content['hparams']


def test_a_method_whose_trials_all_fail_stops_no_other(folder):
  config = small_search.config(folder)
  config['compare'] = {'ga': {'num_epochs': 1}}
  config['search']['space'] = {
    'batch_size': 64,
    'num_epochs': 1,
    'ft': {'learning_rate': 1e30},
  }
  (folder / 'search' / 'ft' / 'settings.json').unlink()
  with pytest.raises(ValueError, match='^search of ft: every trial failed'):
    driver.run(settings_lib.from_config(config))
  assert (folder / 'search' / 'ga' / 'settings.json').exists()
  assert not (folder / 'search' / 'ft' / 'settings.json').exists()
  with (folder / 'search' / 'ft' / 'trials.csv').open() as file:
    states = [row['state'] for row in csv.DictReader(file)]
  assert len(states) == 8 and all(s.startswith('failed at') for s in states)


def test_the_default_is_that_of_the_method(folder, monkeypatch):
  judged = []
  choose = judging.choose
  monkeypatch.setattr(
    judging,
    'choose',
    lambda *args, **options: (
      judged.append(options['default']) or choose(*args, **options)
    ),
  )
  config = small_search.config(folder)
  config['unlearn']['hparams']['learning_rate'] = 0.02
  (found,) = driver.run(settings_lib.from_config(config))
  (default,) = judged
  # Not what the job has, which may be the result of a search.
  assert default['learning_rate'] == 0.1 and default['batch_size'] == 64


def test_a_seed_without_room_for_all_samplers_is_refused(tmp_path):
  assert plan.text(small_search.settings(tmp_path, seed=2**32 - 2))
  with pytest.raises(ValueError, match='seed = 4294967295: .* at most 42949'):
    plan.text(small_search.settings(tmp_path, seed=2**32 - 1))


@pytest.mark.parametrize(
  'fields, words',
  [
    ({'grid': [0.1]}, r'grid = \[0.1\]; give hyper-parameters by name'),
    ({'space': 'log'}, "space = 'log'; give hyper-parameters by name"),
    ({'training': True}, r"is searched with jaxmu.search\('original'\)"),
  ],
)
def test_python_refuses_what_is_not_by_name(tmp_path, fields, words):
  with pytest.raises(ValueError, match=words):
    jobs.search('ga', model='tiny', workdir=tmp_path, **fields)


def test_an_interrupted_search_continues_with_the_same_trials(folder):
  table = folder / 'search' / 'ft' / 'trials.csv'
  whole = table.read_text()
  shards = sorted((folder / 'store' / 'search').glob('*/shard_*'))
  shutil.rmtree(shards[-1])
  stamps = {path: path.stat().st_mtime_ns for path in shards[:-1]}
  (folder / 'search' / 'optuna.journal').write_text('{"damaged')
  driver.run(small_search.settings(folder))
  assert {path: path.stat().st_mtime_ns for path in shards[:-1]} == stamps

  def without_seconds(text):
    return [
      {k: v for k, v in row.items() if k != 'seconds'}
      for row in csv.DictReader(text.splitlines())
    ]

  assert without_seconds(table.read_text()) == without_seconds(whole)


@pytest.mark.slow
def test_more_trials_keep_those_that_are_there(folder):
  before = {p.name for p in (folder / 'store' / 'search').iterdir()}
  (found,) = driver.run(small_search.settings(folder, trials=29))
  assert len(found.rows) == 58
  assert found.rows[0].number == 0
  after = {p.name for p in (folder / 'store' / 'search').iterdir()}
  assert before < after


def test_a_grid_tries_all_combinations(folder):
  grid = {'learning_rate': RATES, 'num_epochs': (1, 2)}
  (found,) = driver.run(small_search.settings(folder, grid=grid))
  assert len(found.rows) == 2 * 8
  tried = {
    (r.setting['learning_rate'], r.setting['num_epochs']) for r in found.rows
  }
  assert tried == {(rate, n) for rate in RATES for n in (1, 2)}
  failed = {r.setting['learning_rate'] for r in found.rows if r.failed}
  assert 1e30 in failed and 1e-3 not in failed
  assert all(r.state.startswith('failed at') for r in found.rows if r.failed)
  assert found.choice.setting['learning_rate'] in RATES[:3]
  assert found.programs == 1


def test_the_plan_counts_trials_and_programs_and_trains_nothing(tmp_path):
  text = plan.text(
    small_search.settings(
      tmp_path, space={'batch_size': (32, 64), 'momentum': 0.5}
    )
  )
  assert '3 original, 3 retrain; 6 still to train' in text
  assert '8 trials: 4 for each of 2 initialisations, random' in text
  assert '11 models, 2 programs' in text
  assert 'learning_rate in [1e-05, 0.1], logarithmic' in text
  assert 'batch_size in [32, 64]' in text and 'momentum' not in text
  assert not (tmp_path / 'store').exists()
  # A program for each batch size, but no more than models.
  for space, count in (('uniform(16, 19)', 4), ('uniform(16, 64)', 11)):
    text = plan.text(
      small_search.settings(tmp_path, space={'batch_size': space})
    )
    assert f'11 models, {count} programs' in text
  grid = {'learning_rate': (0.1, 0.2), 'batch_size': (16, 32, 64)}
  text = plan.text(small_search.settings(tmp_path, grid=grid))
  assert '12 trials: 6 for each of 2 initialisations, all of a grid' in text
  assert '3 programs' in text
  # No more finalists than trials; without judges the default alone is added.
  text = plan.text(small_search.settings(tmp_path, trials=1, finalists=9))
  assert 'the best 2 judged on 1 others: 5 models, 1 program\n' in text
  text = plan.text(small_search.settings(tmp_path, judges=0))
  assert 'the best value wins: 10 models' in text


def test_the_plan_verifies_the_store_once(folder, monkeypatch):
  read = []
  missing = store.Shelf.missing
  monkeypatch.setattr(
    store.Shelf,
    'missing',
    lambda shelf, **options: (
      read.append((shelf.stage, shelf.label)) or missing(shelf, **options)
    ),
  )
  assert 'disk           0 bytes' in plan.text(small_search.settings(folder))
  assert read == [('models', 'original'), ('models', 'retrain')]


def test_the_work_of_a_search_is_that_of_its_models(tmp_path):
  def work(**search):
    settings = small_search.settings(tmp_path, **search)
    opened = opening.open_search(settings, print)
    return opened.job, opened.work - sum(s.work for s in opened.steps)

  def cost(job, epochs):
    """Fine-tuning passes over the retain set, three forwards an image."""
    seen = job.sizes.retain + job.sizes.forget + job.sizes.val
    return 3 * epochs * job.sizes.retain + seen

  # Four trials on two initialisations; two finalists and the default on one.
  job, sampled = work(space={'batch_size': 64, 'num_epochs': (1, 4)})
  assert sampled == pytest.approx((8 + 3) * cost(job, 2.5))
  job, of_grid = work(grid={'num_epochs': (1, 2, 9)})
  each = [cost(job, epochs) for epochs in (1, 2, 9)]
  assert of_grid == pytest.approx(2 * sum(each) + 3 * cost(job, 4))


def test_the_plan_shows_the_speed_of_its_own_layout(tmp_path, monkeypatch):
  known = execution.Measurements(
    tuple(
      execution.Measured(execution.Plan(*key), images, 1.0, None, 0, None)
      for key, images in (((2, 1), 500.0), ((2, 4), 900.0))
    ),
    {},
  )
  cache = types.SimpleNamespace(read=lambda: known)
  monkeypatch.setattr(stages, 'measurement_cache', lambda job: cache)
  settings = small_search.settings(tmp_path)
  assert 'at 1,500 forward passes/s' in plan.text(settings)


def test_generations_of_the_reference_cannot_be_changed(tmp_path):
  for size in (0, 50):
    opening.open_search(
      small_search.settings(tmp_path, sampler='reference', generation=size),
      print,
    )
  wrong = small_search.settings(tmp_path, sampler='reference', generation=25)
  with pytest.raises(ValueError, match='search.generation = 25: .* at 0, or'):
    driver.run(wrong)
  assert not (tmp_path / 'store').exists()


@pytest.mark.parametrize(
  'search, words',
  [
    (
      {
        'grid': {
          'learning_rate': np.linspace(0.1, 0.2, 101).tolist(),
          'weight_decay': np.linspace(0.1, 0.2, 100).tolist(),
        }
      },
      'grid has 10,100 combinations; give at most 10,000',
    ),
    ({'trials': 10_000, 'initialisations': 11}, '110,003 models .*at most 100'),
    ({'finalists': 10_000, 'trials': 10_000, 'judges': 1000}, 'choose at most'),
  ],
)
def test_searches_without_bounds_are_refused(tmp_path, search, words):
  with pytest.raises(ValueError, match=words) as error:
    opening.open_search(small_search.settings(tmp_path, **search), print)
  assert '\n' not in str(error.value)


def test_optuna_warns_of_nothing(finished, tmp_path, recwarn):
  _, found = finished
  records.update_journal(tmp_path / 'journal', found.rows, found.space)
  assert not [str(w.message) for w in recwarn]


def test_what_cannot_be_searched_is_refused_before_training(tmp_path):
  config = small_search.config(tmp_path)
  config['compare'] = {'ct': {}}
  config['search']['space'] = {'learnign_rate': 0.1}
  with pytest.raises(ValueError, match="unknown; did you mean 'learning_rate'"):
    driver.run(settings_lib.from_config(config))
  config = small_search.config(tmp_path)
  config['splits']['forget_fraction'] = 0.005
  with pytest.raises(ValueError, match='forgotten and .* needs 10 of each'):
    driver.run(settings_lib.from_config(config))
  assert not (tmp_path / 'store').exists()


def test_outputs_that_are_not_finite_count_as_failed():
  index = np.arange(30).reshape(1, 30)
  sets = Split(index[:, :10], index[:, 10:20], index[:, 20:])
  finite = np.ones((2, 30), bool)
  finite[1, 3] = False
  scores = np.random.default_rng(0).normal(size=(2, 30))
  predictions = population.Predictions(scores, scores > 0, finite)
  two = jax.tree.map(lambda x: np.repeat(x, 2, axis=0), sets)
  assert trials.measure(predictions, two).failed.tolist() == [-1, 0]


@pytest.fixture(scope='module')
def no_oracle(finished, tmp_path_factory):
  """Two searches without an oracle: with retrained models, and without."""
  results = []
  for train, names in ((True, '*'), (False, 'original-*')):
    folder = tmp_path_factory.mktemp('no_oracle')
    for place in (finished[0] / 'store' / 'models').glob(names):
      shutil.copytree(place, folder / 'store' / 'models' / place.name)
    config = small_search.config(folder)
    config['retrained'] = {'train': train}
    config['search'] |= {'objective': 'no_oracle', 'finalists': 3}
    results += driver.run(settings_lib.from_config(config))
  return results


@pytest.mark.slow
def test_without_retrained_models(no_oracle):
  _, found = no_oracle
  store_folder = found.folder.parents[1] / 'store'
  assert not list((store_folder / 'models').glob('retrain-*'))
  assert np.isfinite(found.choice.norm)
  assert 'regret' not in found.content and 'regret' not in found.sentence()
  assert 'regret' not in (found.folder / 'report.html').read_text()


def test_the_regret_is_that_of_a_search_with_the_oracle(no_oracle, tmp_path):
  found, without = no_oracle
  assert found.choice.setting == without.choice.setting
  lost = found.content['regret']
  # The same trials, chosen from by the reference objectives.
  folder = found.folder.parents[1]
  shutil.copytree(folder / 'store' / 'models', tmp_path / 'store' / 'models')
  (oracle,) = driver.run(small_search.settings(tmp_path, finalists=3))
  assert [r.setting for r in oracle.rows] == [r.setting for r in found.rows]
  assert [r.norm for r in oracle.rows] == [r.reference_norm for r in found.rows]
  means = {
    str(oracle.rows[p].setting): mean
    for p, mean in zip(
      oracle.choice.finalists, oracle.choice.means[:-1], strict=True
    )
  }
  own = means.get(str(found.choice.setting), lost['chosen'])
  assert lost['chosen'] == own
  assert lost['best'] == min(own, oracle.choice.norm)
  assert lost['regret'] == lost['chosen'] - lost['best'] >= 0
  page = (found.folder / 'report.html').read_text()
  assert f'a regret of {lost["regret"]:.4f}' in page
  assert f'regret {lost["regret"]:.4f}; written' in found.sentence()
  with (found.folder / 'trials.csv').open() as file:
    column = [float(r['reference_norm']) for r in csv.DictReader(file)]
  assert column == [row.norm for row in oracle.rows]


def test_the_regret_without_judges_is_that_of_the_trials():
  rows = [
    records.TrialRow(
      *('ft', 0, n, 0, {'a': n}, 1.0, 1.0, 1.0, 1.0, (0.0,) * 4),
      *(norm, state, 1.0, reference),
    )
    for n, (norm, state, reference) in enumerate(
      [
        (0.1, 'complete', 0.5),
        (0.2, 'complete', 0.3),
        (0.3, 'inert', 0.1),
        (0.4, 'complete', np.inf),
      ]
    )
  ]
  choice = judging.Choice({'a': 0}, 0.1, 0, [], np.zeros(0))
  judge = types.SimpleNamespace(measures_regret=True)
  lost = judging.regret(judge, rows, choice, default=None, count=2, judges=())
  assert lost == (0.5, 0.3) and lost.value == pytest.approx(0.2)


def test_outcomes_are_the_metrics_of_a_job(finished):
  """Each trial, trained alone and measured by the metrics of a report."""
  folder, found = finished
  settings = small_search.settings(folder)
  with progress.Progress() as bars:
    job = opening.open_search(settings, bars.line).job
  predictor = population.Predictor(job.task, population.Layout(1, 1))
  trainer = population.Trainer(
    methods.get('ft'), job.task, population.Layout(1, 1)
  )
  everyone = job_lib.members_per_forget_set(
    job.design, job.settings.splits.seeds
  )
  originals = stages.read_models(
    job, job.populations['original'], np.arange(everyone.size)
  )
  for row in found.rows[:2] + found.rows[-2:]:
    place = np.array([row.initialisation])
    members = stages.select_members(everyone, place)
    trained = trainer.run(
      [hp.from_config(methods.get('ft').Hparams, row.setting)],
      job_lib.draw_keys(job.root, 'ft', members, False),
      job_lib.index_sets(job.design, members),
      jax.tree.map(lambda x, p=place: x[p], originals),
    )
    predictions = predictor.run(trained.variables)
    evaluated = Evaluated(
      name='ft',
      log_odds=np.asarray(predictions.log_odds, np.float64),
      correct=np.asarray(predictions.correct),
      state=splits.membership(job.design, len(job.source.label)),
      validation=job.design.val,
      test=np.arange(job.source.num_dev, len(job.source.label)),
      cluster=np.zeros(1, int),
      split=np.zeros(1, int),
      classes=job.source.num_classes,
      failed=np.zeros(1, bool),
    )
    numbers = {
      **metrics.METRICS['accuracy'].compute(evaluated),
      **metrics.METRICS['indiscernibility'].compute(evaluated),
    }
    for ours, theirs in (
      (row.retain, 'ra'),
      (row.forget, 'fa'),
      (row.val, 'va'),
      (row.indisc, 'indisc_val'),
    ):
      np.testing.assert_allclose(ours, numbers[theirs][0], atol=1e-6)


def test_a_search_shares_no_initialisation_with_its_job(finished):
  folder, _ = finished
  settings = small_search.settings(folder)
  searched = opening.search_settings(settings)
  assert searched.seed != settings.seed
  assert searched.splits.seeds == 3
  audit = small_job.make(folder)
  other = opening.search_settings(audit)
  assert other.splits.seed != audit.splits.seed


def test_settings_at_which_a_method_is_inert_are_named(finished):
  folder, _ = finished
  with progress.Progress() as bars:
    job = opening.open_search(small_search.settings(folder), bars.line).job
  problem = driver.problem_shapes(job)
  salun = methods.get('salun')
  values = hp.defaults(salun.Hparams)
  keeps_all = {**values, 'mask_fraction': 1.0}
  assert 'as in SRL' in driver.inert(problem, salun, keeps_all)
  assert not driver.inert(problem, salun, {**values, 'mask_fraction': 0.1})
  rni = methods.get('rni')
  values = hp.defaults(rni.Hparams)
  # All few tensors of this network are trained before the default's noise.
  assert not driver.inert(problem, rni, {**values, 'reset_num_epochs': 0})
  quiet = {**values, 'reset_num_epochs': values['num_epochs']}
  assert 'noise' in driver.inert(problem, rni, quiet)
  assert not driver.inert(problem, methods.get('ft'), {})


def test_settings_at_which_a_method_is_inert_are_no_trials(finished):
  folder, _ = finished
  settings = small_search.settings(folder)
  opened = opening.open_search(settings, lambda line: None)
  problem = driver.problem_shapes(opened.job)
  # All few tensors of this network are trained before a later noise.
  rni = methods.get('rni')
  space = spaces.of_method(
    rni.Hparams, {}, train_epochs=60, changes={'reset_num_epochs': (0, 1)}
  )
  for sampler in ('random', 'tpe', 'reference'):
    chosen = dataclasses.replace(
      settings, search=settings.search.replace(sampler=sampler, trials=6)
    )
    pruned = driver._pruned(chosen, problem, rni)
    proposed = next(driver._generations(chosen, space, pruned))
    reasons = [
      driver.inert(problem, rni, one.setting) for _, one in proposed.asked
    ]
    # The benchmark's sampler proposes them, as the benchmark does.
    assert any(reasons) == (sampler == 'reference'), sampler


def test_shards_hold_equal_statics_and_the_longest_first():
  order = trials.shard_order(
    epochs=np.array([1, 5, 3, 2, 4]), groups=[[0, 2, 4], [1, 3]], size=2
  )
  assert [shard.tolist() for shard in order] == [[4, 2], [0], [1, 3]]


def test_a_search_prints_few_lines(tmp_path, capsys):
  """One more for each trained kind of model, however many trials there are."""
  driver.run(small_search.settings(tmp_path, trials=2, generation=1))
  lines = capsys.readouterr().out.splitlines()
  (begin, end, chosen) = [line for line in lines if 'train ' not in line]
  assert begin == 'search ft: 0 of 7 trials'
  assert end.startswith('search ft: 7 trials in ')
  assert chosen.startswith('ft: norm ') and 'settings.json' in chosen


def test_a_result_draws_prints_converts_and_saves(finished, tmp_path):
  folder, searched = finished
  result = jobs.SearchResult(searched)
  assert result.method == 'ft' and result.setting == searched.choice.setting
  for what in ('history', 'front', 'parallel'):
    assert result.plot(what).axes
  with pytest.raises(ValueError, match="no picture 'roc' .* are: history, fr"):
    result.plot('roc')
  assert len(result.table().splitlines()) == 1 + 8
  frame = result.to_pandas()
  assert frame['norm'].tolist() == sorted(row.norm for row in searched.rows)
  assert result.save(tmp_path / 'copy') == tmp_path / 'copy'
  own = {p.relative_to(result.folder) for p in result.folder.rglob('*')}
  for path in own:
    copy = tmp_path / 'copy' / path
    assert copy.exists()
    if path.suffix in ('.csv', '.json'):
      assert copy.read_bytes() == (result.folder / path).read_bytes()
  config = small_search.config(tmp_path)
  config['unlearn']['hparams'] = str(tmp_path / 'copy' / 'settings.json')
  (one,) = settings_lib.from_config(config).unlearners
  assert one.hparams == result.setting
