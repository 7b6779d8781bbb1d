"""Everything that a result depends on enters its address.

The tables below list every setting and every other input of a job, with the
results whose address it changes, or the reason why it changes none. A new input
that is in no table fails a test here.
"""

import dataclasses

import numpy as np
import pytest

from jaxmu import methods, models, types
from jaxmu.data import datasets
from jaxmu.study import job as job_lib
from jaxmu.study import publish, stages
from jaxmu.study import settings as settings_lib
from tests.study import small_job

pytestmark = pytest.mark.xdist_group('job')

ALL = {'original', 'retrain', 'msg', 'timing', 'report'}
UNLEARNED = {'msg', 'timing', 'report'}

# Of a setting: another value, what changes, and settings that it needs.
SETTINGS = {
  'seed': (7, ALL, {}),
  'seed_mode': ('reference', ALL, {}),
  'data__name': (None, ALL, {}),  # see `test_each_input_...`
  'data__augment': ('flip', ALL, {}),
  'splits__design': ('reference', ALL, {'splits__pool': 0}),
  'splits__num_splits': (4, ALL, {}),
  'splits__forget_sets': (1, ALL, {}),
  'splits__forget_fraction': (0.2, ALL, {}),
  'splits__pool': (320, ALL, {}),
  'splits__seeds': (2, ALL, {}),
  'splits__seed': (5, ALL, {}),
  'splits__forget': ('class:3', ALL, {'splits__design': 'main'}),
  'model__name': ('resnet18', ALL, {}),
  'model__options': ({'width': 4}, ALL, {'model__name': 'resnet18'}),
  'model__precision': ('bfloat16', ALL, {}),
  'train__learning_rate': (0.01, ALL, {}),
  'train__momentum': (0.8, ALL, {}),
  'train__weight_decay': (0.0, ALL, {}),
  'train__num_epochs': (3, ALL, {}),
  'train__batch_size': (32, ALL, {}),
  'unlearn__method': (None, UNLEARNED, {}),  # see `test_another_method_...`
  'unlearn__hparams': (None, UNLEARNED, {}),  # see `test_each_hyper_...`
  'compare': ({'ga': {}}, {'timing', 'report'}, {}),
  'originals__checkpoints': (None, ALL, {}),  # see test_originals.py
  'metrics': (None, {'report'}, {}),  # plug-ins, which need a file
  'retrained__train': (False, {'retrain', 'timing', 'report'}, {}),
  'run__shard': (3, ALL, {}),
  'run__cache_teacher': (False, {'timing', 'report'}, {}),
  'timing__repeats': (2, {'timing', 'report'}, {}),
  'attack__which': ('loss', {'report'}, {}),
  'attack__variance': ('global', {'report'}, {}),
  'attack__mode': ('loo', {'report'}, {}),
  'attack__leave_out': ('split', {'report'}, {}),
  'attack__location': ('median', {'report'}, {}),
}

CANNOT_MATTER = {
  'workdir': 'is where the addresses are',
  'data__folder': 'the content has a fingerprint',
  'curve__every': 'curves change no model; the report names the shards with',
  'run__devices': 'changes rounding at most, never a draw',
  'run__chunk': 'changes rounding at most, never a draw',
  'run__memory': 'only limits the choice of devices and chunk',
  'run__verify': 'says how well to look, not what to do',
  'run__share': 'says where to look, not what for',
  **{
    f'search__{name}': 'a job does not search; trials have other addresses'
    for name in (*settings_lib.Search.__dataclass_fields__, 'space', 'grid')
  },
}


def _addresses(job):
  """Return addresses by result; scores must follow from their models."""
  found = {name: p.digest for name, p in job.populations.items()}
  for population in job.populations.values():
    assert population.models.address == population.digest
    assert population.scores.address == job_lib.address(
      'predict', population.digest
    )
    assert population.models.members == population.scores.members
  timing = [stages.timing_shelf(job, name).address for name in job.populations]
  found['timing'] = ' '.join(timing)
  found['report'] = publish.report_shelf(job).address
  return found


def _changed(before, after):
  return {name for name in before if before[name] != after.get(name)}


def _open(folder, **changes):
  return _addresses(job_lib.open_job(small_job.make(folder, **changes)))


def _names(config, prefix=''):
  for name, value in config.items():
    inner = isinstance(value, dict) and prefix + name not in (
      *('compare', 'model__options', 'unlearn__hparams'),
      *('search__space', 'search__grid'),
    )
    if inner:
      yield from _names(value, f'{prefix}{name}__')
    else:
      yield prefix + name


def test_every_setting_is_in_a_table(tmp_path):
  config = small_job.config(tmp_path).to_dict()
  assert set(_names(config)) == {*SETTINGS, *CANNOT_MATTER}


def test_each_setting_changes_what_depends_on_it(tmp_path):
  base: dict = {}
  wrong = []
  for name, (value, changes, needs) in SETTINGS.items():
    if value is None:
      continue
    key = str(needs)
    if key not in base:
      base[key] = _open(tmp_path, **needs)
    got = _changed(base[key], _open(tmp_path, **{**needs, name: value}))
    if got != changes:
      wrong.append(f'{name}: {sorted(got)}, not {sorted(changes)}')
  assert not wrong


def test_what_cannot_matter_changes_nothing(tmp_path, monkeypatch):
  monkeypatch.setenv('JAXMU_DATA_DIR', str(tmp_path))
  base = _open(tmp_path)
  values = {
    'workdir': str(tmp_path / 'other'),
    'data__folder': str(tmp_path / 'data'),
    'curve__every': 1,
    'run__devices': 1,
    'run__chunk': 2,
    'run__memory': 1.0,
    'run__verify': False,
    'run__share': True,
    'search__trials': 7,
    'search__initialisations': 2,
    'search__sampler': 'random',
    'search__objective': 'no_oracle',
    'search__generation': 3,
    'search__finalists': 2,
    'search__judges': 1,
    'search__seed': 3,
    'search__training': True,
    'search__space': {'learning_rate': 0.1},
    'search__grid': {'learning_rate': (0.1, 0.2)},
  }
  assert set(values) == set(CANNOT_MATTER)
  for name, value in values.items():
    if name == 'workdir':
      after = _open(tmp_path / 'other')
    else:
      after = _open(tmp_path, **{name: value})
    assert not _changed(base, after), name


def test_each_hyper_parameter_changes_what_depends_on_it(tmp_path):
  hparams = small_job.config(tmp_path).unlearn.hparams.to_dict()
  base = _open(tmp_path)
  for name, value in hparams.items():
    if isinstance(value, bool | str):
      continue  # choices; they are in the address like all others
    other = value + 1 if isinstance(value, int) else value / 2
    after = _open(tmp_path, **{f'unlearn__hparams__{name}': other})
    assert _changed(base, after) == UNLEARNED, name


def test_another_method_has_another_address(tmp_path):
  after = _open(tmp_path, unlearn={'method': 'ft', 'hparams': {}})
  assert _changed(_open(tmp_path), after) == UNLEARNED
  assert 'ft' in after


@pytest.fixture
def fixed(monkeypatch, tmp_path):
  """A job with given data and design, to be changed one by one."""
  settings = small_job.make(tmp_path)
  source = datasets.load('digits')
  design = job_lib.make_design(settings, source)

  def open_job(source=source, design=design):
    monkeypatch.setattr(datasets, 'load', lambda *_, **__: source)
    monkeypatch.setattr(job_lib, 'make_design', lambda *_: design)
    return _addresses(job_lib.open_job(settings))

  return open_job, source, design


def test_each_input_of_the_data_changes_every_address(fixed):
  open_job, source, _ = fixed
  base = open_job()
  transform = source.transform
  changes = {
    'name': 'other',
    'fingerprint': 'other',  # of images and labels
    'num_dev': source.num_dev - 1,
    'num_classes': source.num_classes + 1,
    'transform': None,
  }
  covered = {'image': 'fingerprint', 'label': 'fingerprint'}
  fields = {field.name for field in dataclasses.fields(source)}
  assert {*changes, *covered} <= fields
  del changes['transform']
  for name, value in changes.items():
    changed = dataclasses.replace(source, **{name: value})
    assert _changed(base, open_job(changed)) == ALL, name
  others = {
    'mean': tuple(x + 0.1 for x in transform.mean),
    'std': tuple(x + 0.1 for x in transform.std),
    'flip': not transform.flip,
    'crop_padding': transform.crop_padding + 4,
  }
  assert set(others) == {f.name for f in dataclasses.fields(transform)}
  for name, value in others.items():
    other = dataclasses.replace(transform, **{name: value})
    changed = dataclasses.replace(source, transform=other)
    assert _changed(base, open_job(changed)) == ALL, name


def test_each_array_of_the_design_changes_every_address(fixed):
  open_job, _, design = fixed
  base = open_job()
  for field in dataclasses.fields(design):
    value = getattr(design, field.name)
    if isinstance(value, np.ndarray):
      value = np.roll(value, 1, axis=-1)
      if field.name in ('split', 'forget_set', 'pair'):
        value = np.array(value) + 1
    else:
      value += 1
    changed = dataclasses.replace(design, **{field.name: value})
    assert _changed(base, open_job(design=changed)) == ALL, field.name


def test_code_and_versions_change_addresses(fixed, monkeypatch):
  open_job, _, _ = fixed
  base = open_job()
  with monkeypatch.context() as patch:
    patch.setattr(job_lib, '__version__', 'other')
    assert _changed(base, open_job()) >= ALL - {'report'}
  for owner in (methods.METHODS, models):
    with monkeypatch.context() as patch:
      patch.setattr(owner, 'fingerprint', lambda spec: 'other')
      assert _changed(base, open_job()) == ALL, owner
  for stage, changes in {
    'train': ALL,
    'predict': set(),  # its addresses are compared in `_addresses`
    'timing': {'timing', 'report'},
    'report': {'report'},
  }.items():
    with monkeypatch.context() as patch:
      version = job_lib.STAGE_VERSIONS[stage] + 1
      patch.setitem(job_lib.STAGE_VERSIONS, stage, version)
      assert _changed(base, open_job()) == changes, stage


def test_times_belong_to_a_machine(fixed, monkeypatch):
  open_job, _, _ = fixed
  base = open_job()
  facts, versions = job_lib.hardware_facts(), job_lib.versions()
  for name in ('device', 'processor', 'cores'):
    with monkeypatch.context() as patch:
      other = {**facts, name: 'other'}
      patch.setattr(job_lib, 'hardware_facts', lambda other=other: other)
      assert _changed(base, open_job()) == {'timing', 'report'}, name
  with monkeypatch.context() as patch:
    patch.setattr(job_lib, 'versions', lambda: {**versions, 'jax': 'other'})
    # Models are kept: another version changes rounding at most.
    assert _changed(base, open_job()) == {'timing', 'report'}


def test_what_programs_see_is_known_to_this_file():
  """A new field must enter the address, or have a reason here."""
  task = {
    'dataset': 'fingerprint',
    'model': 'name, options, classes and code',
    'transform': 'identity of the data',
    'precision': 'setting',
    'cache_teacher': 'cannot matter: the same results, kept or computed again',
  }
  problem = {'task': '', 'split': 'design', 'start': 'upstream, or seed'}
  assert {f.name for f in dataclasses.fields(types.Task)} == set(task)
  assert {f.name for f in dataclasses.fields(types.Problem)} == set(problem)
