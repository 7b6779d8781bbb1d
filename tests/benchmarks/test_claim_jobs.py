"""The small jobs that claims need beside a sweep."""

import json

import pytest

from jaxmu import hparams as hp
from jaxmu import methods
from jaxmu.study import tuned
from jaxmu.sweeps import design
from jaxmu.tuning import opening
from tests.sweeps import small_sweep

METHODS = ('ft', 'ga', 'kde', 'neggrad_plus')


def searched(name):
  return hp.defaults(methods.get(name).Hparams) | {'learning_rate': 0.0123}


@pytest.fixture
def sweep(tmp_path):
  config = small_sweep.config(tmp_path, methods=METHODS)
  for kind, names in (('search', METHODS), ('ulira_search', ('ft',))):
    for name in names:
      path = tuned.folder(tmp_path / 'digits_tiny' / kind, name) / tuned.NAME
      path.parent.mkdir(parents=True)
      content = {
        'method': name,
        'data': 'digits',
        'model': 'tiny',
        'hparams': searched(name),
      }
      path.write_text(json.dumps(content))
  return design.from_config(config)


def test_jobs_differ_from_their_study_in_their_methods(load, sweep, tmp_path):
  found = load('claim_jobs').jobs(sweep)
  by_name = {extra.name: settings for extra, settings in found}
  # Digits have no augmentation.
  assert set(by_name) == {'default', 'kde_disjoint', 'large_rate'}
  for name, settings in by_name.items():
    assert settings.workdir == str(tmp_path / 'digits_tiny' / name)
  main, ulira = (
    next(s for s in sweep.studies if s.kind == kind).settings
    for kind in ('main', 'ulira')
  )
  assert by_name['default'].splits == by_name['kde_disjoint'].splits
  assert by_name['default'].splits == main.splits
  assert by_name['large_rate'].splits == ulira.splits
  for name in by_name:
    assert by_name[name].train == main.train


def test_settings_are_default_searched_or_larger(load, sweep):
  module = load('claim_jobs')
  by_name = {extra.name: settings for extra, settings in module.jobs(sweep)}
  search = next(s for s in sweep.studies if s.kind == 'search').settings
  for one in by_name['default'].unlearners:
    default = hp.defaults(methods.get(one.method).Hparams)
    (of_search,) = [u for u in search.unlearners if u.method == one.method]
    space = opening.method_space(search, of_search)
    assert dict(one.hparams) == space.nearest(default)
    assert one.hparams['learning_rate'] != 0.0123
  kde, disjoint = by_name['kde_disjoint'].unlearners
  assert disjoint.method.endswith('kde_disjoint')
  assert dict(kde.hparams) == dict(disjoint.hparams) == searched('kde')
  assert by_name['kde_disjoint'].metrics[0].endswith('held_validation')
  for one in by_name['large_rate'].unlearners:
    assert one.hparams['learning_rate'] == pytest.approx(0.123)
    rest = {k: v for k, v in one.hparams.items() if k != 'learning_rate'}
    assert rest.items() <= searched(one.method).items()


def test_jobs_are_chosen_by_cell_and_name(load, sweep):
  module = load('claim_jobs')
  (one,) = module.jobs(sweep, 'digits_tiny/default')
  assert one[0].name == 'default' and one[0].claim == 5
  assert [e.name for e, _ in module.jobs(sweep, 'large_rate')] == ['large_rate']
  assert len(module.jobs(sweep, 'digits_tiny')) == 3
  with pytest.raises(ValueError, match="no job 'other'"):
    module.jobs(sweep, 'other')


def test_a_setting_that_was_not_searched_is_named(load, tmp_path):
  config = small_sweep.config(tmp_path, methods=METHODS)
  with pytest.raises(ValueError, match='search'):
    load('claim_jobs').jobs(design.from_config(config), 'large_rate')


def test_every_claim_with_a_job_names_it(load):
  from jaxmu import claims

  needs = {claim.number: claim.needs for claim in claims.CLAIMS}
  for extra in load('claim_jobs').JOBS:
    assert extra.name in needs[extra.claim]
