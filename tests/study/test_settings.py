"""Wrong settings stop a job before it starts, with the value and a remedy."""

import os
import pathlib
import re

import pytest

from jaxmu import methods, precision
from jaxmu.study import job as job_lib
from jaxmu.study import run, settings, store
from tests.study import small_job

WRONG = [
  ('unlearn__method', 'mgs', "unknown method 'mgs'; did you mean 'msg'"),
  ('unlearn__method', 'retrain', 'choose an unlearning method'),
  ('unlearn__hparams__learning_rate', -0.1, r'learning_rate = -0.1; give'),
  ('unlearn__hparams__batch_size', 0, 'batch_size = 0; give a value in'),
  ('splits__forget_fraction', 0.0, r'forget_fraction = 0.0; give a value in'),
  ('splits__forget_fraction', 1.0, r'forget_fraction = 1.0; give a value in'),
  ('splits__design', 'half', r"design = 'half'; choose one of"),
  ('model__name', 'resnet19', "unknown model 'resnet19'.*choose one"),
  (
    'model__precision',
    'float16',
    "model.precision cannot be 'float16'; choose",
  ),
  ('splits__forget', 'some', "splits.forget: forget set 'some': choose"),
  ('splits__forget', 'class:3', 'needs one split; set config.splits.design'),
  ('seed', -1, 'seed = -1; give a whole number'),
  ('seed', 2**32, 'seed = 4294967296; give a whole number from 0 to 4'),
  ('seed', True, 'seed = True; give a whole number'),
  ('splits__seed', 2**32, 'splits.seed = 4294967296; give a value in'),
  ('splits__seeds', 10**30, r'seeds = 1000.*; give a value in \[1, 10000\]'),
  ('splits__num_splits', 10**9, 'num_splits = 1000000000; give a value in'),
  ('timing__repeats', 10**12, 'repeats = 1000000000000; give a value in'),
  ('seed_mode', 'shared', "seed_mode = 'shared'; choose one of"),
  ('attack__variance', 'none', "variance = 'none'; choose one of"),
  ('curve__every', -1, 'every = -1; give'),
  ('timing__repeats', 0, 'repeats = 0; give'),
  ('run__devices', -1, r'config.run.devices = -1; give a value in \[0, 1024\]'),
  ('run__devices', 10**12, r'run.devices = 1000000000000; give a value in'),
  ('run__chunk', 10**12, r'run.chunk = 1000000000000; give a value in'),
  ('splits__pool', 10**30, r'splits.pool = 1000\d*; give a value in'),
  ('train__num_epochs', 2**31, r'num_epochs = 2147483648; give a value in'),
  ('train__batch_size', 10**12, r'batch_size = 1000000000000; give a value'),
  ('train__learning_rate', 1e60, r'train.learning_rate = 1e\+60; .*float32'),
  ('train__momentum', 1e-60, r'momentum = 1e-60; float32 makes it 0; give'),
  ('unlearn__hparams__learning_rate', 1e60, r'hparams.learning_rate = .*float'),
  ('splits__seeds', 10_000, 'asks for 160,000 models.*at most 100'),
  ('train__weight_decay', float('nan'), 'weight_decay = nan; give a finite'),
]


@pytest.mark.parametrize(('name', 'value', 'message'), WRONG)
def test_wrong_values_are_refused(tmp_path, name, value, message):
  with pytest.raises(ValueError, match=message):
    small_job.make(tmp_path, **{name: value})


_ATTACK = """
from jaxmu.attacks import interface

ATTACK = interface.from_score(
  'mine',
  lambda population, data, options: population.mean,
  interface.Card(
    title='Mine', subject='mine', source='here', terms=interface.ROC_TERMS,
    question='forgotten_or_unseen',
  ),
)
"""
_METRIC = """
from jaxmu.metrics import METRICS, interface

TERM = METRICS['accuracy'].card.terms['fa']
METRIC = interface.Metric(
  'mine', lambda p: {'mine': p.log_odds[:, 0]},
  interface.Card('Mine', {'mine': TERM}),
)
"""
_SKELETON = pathlib.Path(methods.__file__).with_name('_skeleton.py').read_text()


def _write(folder, **texts):
  """Write plug-ins; return their paths by name."""
  paths = {name: folder / f'{name}.py' for name in texts}
  for name, text in texts.items():
    paths[name].write_text(text)
  return {name: str(path) for name, path in paths.items()}


def test_plug_ins_of_one_name_are_refused_and_repeated_ones_count_once(
  tmp_path,
):
  one = _write(tmp_path, a=_ATTACK, m=_METRIC, u=_SKELETON)
  two = _write(tmp_path, a2=_ATTACK + '#', m2=_METRIC + '#', u2=_SKELETON + '#')
  taken = _write(
    tmp_path,
    other=_METRIC.replace("'mine'", "'accuracy'", 1),
    time=_METRIC.replace("'mine':", "'rte':"),
  )
  work = tmp_path / 'work'
  found = small_job.make(
    work, attack__which=f'{one["a"]}, {one["a"]},', metrics=(one['m'],) * 2
  )
  assert found.attack.names == (one['a'],) * 2
  wrong = [
    ({'attack__which': f'{one["a"]},{two["a2"]}'}, "is named 'mine' too; give"),
    ({'metrics': (one['m'], two['m2'])}, "name 'mine', which another metric"),
    ({'metrics': (taken['other'],)}, "name 'accuracy', which another metric"),
    ({'metrics': (taken['time'],)}, r"\['rte'\], which other metrics give"),
  ]
  for changes, message in wrong:
    with pytest.raises(ValueError, match=message):
      small_job.make(work, **changes)
  config = small_job.config(work).to_dict()
  config['compare'] = {one['u']: {}, two['u2']: {}}
  with pytest.raises(ValueError, match="u.py' has this name too, so give it"):
    settings.from_config(config)


@pytest.mark.parametrize(
  ('old', 'new', 'message'),
  [
    (
      'cost=lambda h, n: 3 *',
      'cost=lambda h, n: 1 / 0 *',
      r'my_method.*card.cost raises ZeroDivisionError.*mine.py, line \d+\)',
    ),
    (
      '  del epoch',
      "  raise KeyError('trouble')",
      r"my_method.* raises KeyError: 'trouble' \(mine.py, line \d+\); correct",
    ),
    (
      '  epoch=epoch,',
      '  epoch=epoch,\n  finish=lambda hparams, state: state.nothing,',
      r'my_method.* raises AttributeError.*mine.py, line \d+\); correct',
    ),
  ],
)
def test_a_method_that_raises_is_named_before_training(
  tmp_path, old, new, message
):
  assert old in _SKELETON
  paths = _write(tmp_path, mine=_SKELETON.replace(old, new))
  config = small_job.config(tmp_path / 'work').to_dict()
  config['unlearn'] = {'method': paths['mine'], 'hparams': {}}
  with pytest.raises(ValueError, match=message) as error:
    run.run(settings.from_config(config))
  assert '\n' not in str(error.value)
  assert not list((tmp_path / 'work').glob('store/models/*'))


def test_whole_numbers_beyond_floating_point_are_refused(tmp_path):
  config = small_job.config(tmp_path).to_dict()
  for section, name in (
    *(('train', 'learning_rate'), ('train', 'num_epochs')),
    *(('splits', 'forget_fraction'), ('run', 'devices')),
  ):
    changed = {**config, section: {**config[section], name: 10**400}}
    with pytest.raises(ValueError, match=f'{name} = 10000.*float32'):
      settings.from_config(changed)


def test_two_ways_to_say_how_to_compute_are_refused(tmp_path):
  model = {'name': 'tiny', 'options': {'dtype': 'float32'}}
  with pytest.raises(ValueError, match='both set the precision; drop'):
    small_job.make(tmp_path, model={**model, 'precision': 'bfloat16'})


def test_precision_addresses_the_models(tmp_path):
  jobs = [
    job_lib.open_job(small_job.make(tmp_path, model__precision=name))
    for name in precision.PRECISIONS
  ]
  addresses = {job.populations['original'].digest for job in jobs}
  assert len(addresses) == len(precision.PRECISIONS)
  assert jobs[2].task.model.dtype == 'bfloat16'


def test_unknown_names_are_refused_and_known_ones_listed(tmp_path):
  values = small_job.config(tmp_path).to_dict()
  values['splits']['fraction'] = 0.1
  with pytest.raises(ValueError, match='fraction is unknown.*forget_fraction'):
    settings.from_config(values)
  values = small_job.config(tmp_path).to_dict()
  values['unlearn']['hparams']['rate'] = 0.1
  with pytest.raises(ValueError, match='rate is unknown.*learning_rate'):
    settings.from_config(values)


def test_fidelity_is_refused_with_the_way_to_choose_it(tmp_path):
  values = small_job.config(tmp_path).to_dict()
  with pytest.raises(ValueError, match='fidelity is unknown.*NAME:SCALE,paper'):
    settings.from_config({**values, 'fidelity': 'paper'})


def test_unknown_options_of_a_section_are_refused(tmp_path):
  values = small_job.config(tmp_path).to_dict()
  values['model']['width'] = 8
  with pytest.raises(ValueError, match='model.width is unknown.*options'):
    settings.from_config(values)


@pytest.mark.parametrize('name', ['run', 'model', 'workdir', 'unlearn'])
def test_missing_sections_are_named(tmp_path, name):
  values = small_job.config(tmp_path).to_dict()
  del values[name]
  with pytest.raises(ValueError, match=f'config.{name} is missing; add it'):
    settings.from_config(values)


@pytest.mark.parametrize('value', [None, 3, 'x', [1]])
def test_sections_that_are_none_are_refused(tmp_path, value):
  for name in ('run', 'model', 'unlearn', 'compare', 'train', 'originals'):
    config = small_job.config(tmp_path).to_dict()
    config[name] = value
    with pytest.raises(ValueError, match=f'config.{name} = .*give a section'):
      settings.from_config(config)
  config = small_job.config(tmp_path).to_dict()
  config['compare'] = {'ga': value}
  with pytest.raises(ValueError, match='compare.ga.hparams = .*give names'):
    settings.from_config(config)


def test_sections_added_later_may_be_absent(tmp_path):
  config = small_job.config(tmp_path).to_dict()
  expected = settings.from_config(config)
  del config['originals'], config['retrained'], config['run']['cache_teacher']
  assert settings.from_config(config) == expected


def test_unknown_data_set_names_those_there_are(tmp_path):
  chosen = small_job.make(tmp_path, data__name='dgits')
  with pytest.raises(ValueError, match='dgits.*digits'):
    job_lib.open_job(chosen)


def test_forget_sets_beyond_the_training_set_are_refused(tmp_path):
  chosen = small_job.make(tmp_path, splits__forget_sets=11)
  with pytest.raises(ValueError, match='11'):
    job_lib.open_job(chosen)


def test_a_plan_refuses_what_is_no_folder_and_makes_none(tmp_path):
  (tmp_path / 'file').touch()
  before = sorted(tmp_path.iterdir())
  for place in ('/dev/null', '/dev/null/job', tmp_path / 'file' / 'job'):
    with pytest.raises(ValueError, match='workdir = .*is not a folder'):
      store.check_workdir(pathlib.Path(place))
  store.check_workdir(tmp_path / 'a' / 'b')
  assert sorted(tmp_path.iterdir()) == before


def test_work_directory_that_is_a_file_is_refused(tmp_path):
  path = tmp_path / 'file'
  path.write_text('in the way')
  with pytest.raises(ValueError, match=re.escape(str(path))):
    run.run(small_job.make(path))


@pytest.mark.skipif(os.geteuid() == 0, reason='root may write anywhere')
def test_work_directory_without_permission_is_refused(tmp_path):
  tmp_path.chmod(0o500)
  with pytest.raises(ValueError, match='cannot be written'):
    run.run(small_job.make(tmp_path / 'job'))


def test_two_runs_in_one_directory_are_refused(tmp_path):
  with store.hold_workdir(tmp_path):
    with pytest.raises(ValueError, match='in use by another run'):
      run.run(small_job.make(tmp_path))


def test_full_disk_is_refused_before_training(tmp_path, monkeypatch):
  monkeypatch.setattr(store, 'free_bytes', lambda folder: 1000)
  with pytest.raises(ValueError, match='B free and the job needs'):
    run.run(small_job.make(tmp_path))
  assert not list(tmp_path.glob('store/models/*/shard_*'))
