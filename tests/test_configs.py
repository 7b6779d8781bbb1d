"""Every configuration loads, is complete and describes a possible job."""

import csv
import importlib
import json
import pathlib
import re

import pytest

from configs import digits
from jaxmu import hparams as hp
from jaxmu import methods
from jaxmu.study import settings

FOLDER = pathlib.Path(__file__).parent.parent / 'configs'
NAMES = sorted(
  p.stem
  for p in FOLDER.glob('*.py')
  if p.stem not in ('__init__', 'common', 'digits')
)
SCALES = ('', 'cifar10,paper', 'mnist', 'utkface', 'cifar10-ulira')

every_config = pytest.mark.parametrize('name', NAMES)


def _load(name: str):
  return importlib.import_module(f'configs.{name}')


@every_config
def test_config_is_accepted_at_every_scale(name):
  for scale in SCALES:
    config = _load(name).get_config(scale)
    chosen = settings.from_config(config.to_dict())
    assert chosen.data.name == (re.split('[-,]', scale)[0] or 'digits')


def test_the_suffix_paper_sets_the_cited_options_and_no_other_is_taken():
  found = _load('scrub_resnet').get_config('cifar10,paper').unlearn.hparams
  assert found.to_dict() == methods.hparams_for('scrub', 'paper')
  for scale in ('cifar10,papr', ',reference', 'digits,'):
    with pytest.raises(ValueError, match="the only suffix is ',paper'"):
      _load('scrub_resnet').get_config(scale)


@every_config
def test_config_has_all_hyper_parameters_of_its_method(name):
  config = _load(name).get_config().to_dict()
  entries = [(config['unlearn']['method'], config['unlearn']['hparams'])]
  entries += config['compare'].items()
  for method, values in entries:
    assert set(values) == set(hp.defaults(methods.get(method).Hparams))
  assert set(config['train']) == set(
    hp.defaults(methods.get('original').Hparams)
  )


@every_config
def test_docstring_gives_paper_and_command(name):
  text = _load(name).__doc__
  assert 'arXiv' in text
  assert f'python -m jaxmu.main --config=configs/{name}.py' in text


def test_every_method_has_a_config_per_architecture():
  unlearners = set(methods.METHODS) - set(methods.BASELINES)
  for method in unlearners:
    assert {f'{method}_resnet', f'{method}_tinyvit'} <= set(NAMES)


def test_unknown_scale_names_those_there_are():
  with pytest.raises(ValueError, match="'cifar11'; choose one of digits"):
    _load('msg_resnet').get_config('cifar11')


def test_digits_settings_are_those_that_the_search_found():
  table = FOLDER.parent / 'benchmarks' / 'search_digits.csv'
  with open(table, newline='') as file:
    found = {
      r['method']: json.loads(r['setting']) for r in csv.DictReader(file)
    }
  assert set(digits.SETTINGS) == set(methods.METHODS) - set(methods.BASELINES)
  for method in set(digits.SETTINGS) - set(digits.BY_HAND):
    cls = methods.get(method).Hparams
    dead = {f.name for f in hp.declared(cls) if hp.meta(f)['dead']}
    ours = {**hp.defaults(cls), **digits.SETTINGS[method]}
    for name in set(ours) - dead:
      theirs = found[method][name]
      if isinstance(theirs, float):
        theirs = float(f'{theirs:.2g}')
      assert ours[name] == theirs, (method, name)


def test_digits_settings_serve_digits_alone():
  small = _load('ct_resnet').get_config().unlearn.hparams
  assert small.learning_rate == digits.SETTINGS['ct']['learning_rate']
  large = _load('ct_resnet').get_config('cifar10').unlearn.hparams
  assert large.to_dict() == methods.hparams_for('ct')
