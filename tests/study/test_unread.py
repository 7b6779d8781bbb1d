"""A field that has no effect on a job is named, and no other one."""

import dataclasses

import numpy as np
import pytest

from jaxmu import hparams as hp
from jaxmu import main, methods
from jaxmu.data import datasets
from jaxmu.study import job as job_lib
from jaxmu.study import publish, recipes, settings, unread
from tests.study import small_job

# Another value of each field that divides the data.
SPLITS = {
  'num_splits': 4,
  'forget_sets': 1,
  'forget_fraction': 0.2,
  'pool': 320,
  'seeds': 2,
  'forget': 'class:4',
  'seed': 5,
}
MAIN = {'splits__design': 'main'}


def _members(job):
  """Return all examples of all members, and the number of members."""
  digests = job.split_digest, job.settings.splits.seeds
  return *digests, [p.members.size for p in job.populations.values()]


@pytest.mark.parametrize(
  'chosen',
  [
    {},
    {'splits__design': 'reference', 'splits__pool': 0},
    MAIN,
    {**MAIN, 'splits__forget': 'class:3'},
  ],
  ids=lambda chosen: '-'.join(map(str, chosen.values())) or 'audit',
)
def test_fields_of_splits_without_effect_are_those_that_change_nothing(
  tmp_path, chosen
):
  def make(**more):
    return job_lib.open_job(small_job.make(tmp_path, **{**chosen, **more}))

  job = make()
  named = unread.fields(job.settings)
  for name, value in SPLITS.items():
    refused = {'forget': 'main' not in chosen.values()}
    refused['pool'] = 'reference' in chosen.values()
    if refused.get(name):
      continue
    same = _members(make(**{f'splits__{name}': value})) == _members(job)
    assert same == (f'config.splits.{name}' in named), name


def test_dead_hyper_parameters_of_all_methods_are_named():
  config = recipes.job_config('scrub', compare=['iu', 'ft'])
  found = unread.fields(settings.from_config(config))
  assert found['config.unlearn.hparams.beta'].startswith('the smoothing term')
  assert found['config.compare.iu.num_epochs'] == 'there is no training'
  assert 'config.compare.ft.num_epochs' not in found
  declared = [
    field
    for name in methods.METHODS
    for field in hp.declared(methods.get(name).Hparams)
  ]
  reasons = [hp.meta(f)['dead'] for f in declared if hp.meta(f)['dead']]
  assert len(reasons) > 5 and all('\n' not in reason for reason in reasons)


def test_settings_of_an_attack_that_does_not_run_are_named(tmp_path):
  def named(**changes):
    found = unread.fields(small_job.make(tmp_path, **changes))
    return {name for name in found if name.startswith('config.attack.')}

  three = {f'config.attack.{n}' for n in ('variance', 'mode', 'location')}
  assert named(attack__which='loss') == three
  assert named(attack__which='loss,ulira') == named() == set()


def test_a_curve_of_models_that_are_not_trained_is_named(tmp_path):
  chosen = small_job.make(tmp_path, originals__checkpoints='a.npz')
  assert 'config.curve.every' not in unread.fields(chosen)
  alone = dataclasses.replace(chosen, retrained=settings.Retrained(train=False))
  assert 'config.curve.every' in unread.fields(alone)


def test_a_command_names_each_given_field_in_one_line(monkeypatch, capsys):
  monkeypatch.setattr(main, 'set_up_jax', lambda config: None)
  main.start(
    [
      '--config=iu_resnet',
      '--config.splits.design=main',
      '--config.splits.seed=3',
      '--config.splits.seed=4',
      '--config.splits.seeds=3',
      '--config.unlearn.hparams.num_epochs=3',
    ]
  )
  assert capsys.readouterr().err.splitlines() == [
    "Warning: --config.splits.seed has no effect: design 'main' has one fixed "
    'split',
    'Warning: --config.unlearn.hparams.num_epochs has no effect: there is no '
    'training',
  ]


def test_a_job_names_settings_of_a_search(monkeypatch, capsys, tmp_path):
  monkeypatch.setattr(main, 'set_up_jax', lambda config: None)
  with pytest.raises(SystemExit, match='describes a plan'):
    main.main(
      [
        '--config=iu_resnet',
        f'--workdir={tmp_path}',
        '--config.search.trials=3',
        '--for=v5e:2x2',
      ]
    )
  assert capsys.readouterr().err == (
    'Warning: --config.search.trials has no effect: python -m jaxmu.search '
    'reads it\n'
  )


def test_a_data_folder_of_digits_is_said_to_be_unread(tmp_path, recwarn):
  datasets.load('digits')
  assert not recwarn.list
  with pytest.warns(UserWarning, match='not read: digits needs none'):
    datasets.load('digits', data_dir=tmp_path)


def test_the_report_counts_the_forget_sets_of_the_design(tmp_path):
  job = job_lib.open_job(
    small_job.make(tmp_path, **MAIN, splits__forget_sets=2)
  )
  text = ' '.join(publish._lead(job))
  assert '1 split, 1 initialisation and 1 forget set per split' in text
  job = job_lib.open_job(small_job.make(tmp_path, splits__forget_sets=2))
  assert '8 splits, 1 initialisation and 2 forget sets' in ' '.join(
    publish._lead(job)
  )
  assert len(np.unique(job.design.split)) == 8
