"""Every configuration loads, is complete and describes a possible job."""

import doctest
import importlib
import json
import pathlib
import re

import pytest

from jaxmu import hparams as hp
from jaxmu import methods
from jaxmu.cli import arguments
from jaxmu.study import recipes, settings, tuned

FOLDER = pathlib.Path(__file__).parent.parent / 'configs'
SWEEPS = ('deep_unlearn',)  # see tests/sweeps
FILES = sorted(
  p.stem for p in FOLDER.glob('*.py') if p.stem not in ('__init__', *SWEEPS)
)
NAMES = [name for name in recipes.names() if name != 'unlearn']
SCALES = ('', 'cifar10,paper', 'mnist', 'utkface', 'cifar10-ulira')
UNLEARNERS = sorted(set(methods.METHODS) - set(methods.BASELINES))

METHOD_FILE = """
from flax import struct

from jaxmu import hparams as hp
from jaxmu.method import Card
from jaxmu.methods import ft


@struct.dataclass
class Hparams:
  step: float = hp.leaf(0.5)
  num_epochs: int = hp.leaf(2)


CARD = Card('Mine', 'nowhere', cost=lambda hparams, sizes: 0.0, reads=())
METHOD = ft.METHOD._replace(name='mine', Hparams=Hparams, card=CARD)
"""


def test_every_name_is_accepted_at_every_scale():
  for name in NAMES:
    for scale in SCALES:
      chosen = settings.from_config(recipes.named(name)(scale))
      assert chosen.data.name == (re.split('[-,]', scale)[0] or 'digits')


def test_files_give_what_their_names_give():
  assert FILES == ['benchmark', 'ct_resnet', 'msg_resnet', 'unlearn']
  for name in FILES:
    file = importlib.import_module(f'configs.{name}')
    for scale in SCALES:
      scale = f'ct,{scale}' if name == 'unlearn' else scale
      assert file.get_config(scale).to_dict() == recipes.named(name)(scale)


def test_docstrings_of_files_give_the_paper_and_the_command():
  for name in FILES:
    text = importlib.import_module(f'configs.{name}').__doc__
    assert 'arXiv' in text
    assert f'python -m jaxmu.main --config=configs/{name}.py' in text


def test_every_method_has_a_name_per_architecture():
  wanted = {f'{m}_{a}' for m in UNLEARNERS for a in ('resnet', 'tinyvit')}
  assert wanted | {'benchmark'} == set(NAMES)


def test_all_hyper_parameters_of_every_method_are_in_the_configuration():
  for name in NAMES:
    config = recipes.named(name)('')
    entries = [(config['unlearn']['method'], config['unlearn']['hparams'])]
    entries += config['compare'].items()
    for method, values in entries:
      assert set(values) == set(hp.defaults(methods.get(method).Hparams))
    assert set(config['train']) == set(
      hp.defaults(methods.get('original').Hparams)
    )


def test_method_model_and_scale_are_given_in_any_order():
  wanted = recipes.job_config('scrub', model='vit11m', scale='cifar10,paper')
  for choice in (
    'scrub,vit11m,cifar10,paper',
    'cifar10,paper,tinyvit,scrub',
    'paper, vit11m, cifar10, scrub',
  ):
    assert recipes.unlearn(choice) == wanted
  assert recipes.unlearn('ct') == recipes.job_config('ct')
  assert recipes.unlearn('ct,digits-ulira') == recipes.job_config(
    'ct', scale='digits-ulira'
  )


def test_plug_ins_bring_their_own_settings(tmp_path):
  file = tmp_path / 'my_method.py'
  file.write_text(METHOD_FILE)
  config = recipes.unlearn(f'{file},cifar10')
  assert config['unlearn'] == {
    'method': str(file),
    'hparams': {'step': 0.5, 'num_epochs': 2},
  }
  assert config['workdir'] == 'workdir/mine_resnet_cifar10'
  both = recipes.job_config('ct', compare=[str(file)])
  assert both['compare'][str(file)]['num_epochs'] == 2
  assert both['workdir'] == 'workdir/ct_mine_resnet_digits'
  net = recipes.unlearn('my_package.nets:Net,ct')
  assert net['model'] == {
    'name': 'my_package.nets:Net',
    'options': {},
    'precision': 'float32',
  }
  assert net['workdir'] == 'workdir/ct_Net_digits'


@pytest.mark.parametrize(
  ('call', 'message'),
  [
    (lambda: recipes.job_config('mgs'), "'mgs'; did you mean 'msg'"),
    (lambda: recipes.job_config('msg', model='resnet'), "mean 'resnet'"),
    (lambda: recipes.job_config('msg', model='vit'), "mean 'vit11m'"),
    (lambda: recipes.job_config('msg', scale='cifar11'), "mean 'cifar10'"),
    (lambda: recipes.job_config('msg', compare=['xx']), "unknown method 'xx'"),
    (lambda: recipes.unlearn('scrubb'), "'scrubb' .*mean 'scrub'"),
    (lambda: recipes.unlearn('ct,ft'), "two methods, 'ct' and 'ft'; name one"),
    (lambda: recipes.unlearn('ct,mnist,digits'), 'two scales'),
    (lambda: recipes.unlearn('resnet18'), 'names no method'),
    (lambda: recipes.unlearn('no_such_file.py'), "no file 'no_such_file.py'"),
  ],
)
def test_unknown_names_give_one_line_with_the_nearest(call, message):
  with pytest.raises(ValueError, match=message) as caught:
    call()
  assert '\n' not in str(caught.value)


def test_only_the_suffix_paper_is_taken_and_sets_the_cited_options():
  given = recipes.named('scrub_resnet')('cifar10,paper')['unlearn']['hparams']
  assert given == methods.hparams_for('scrub', 'paper')
  for scale in ('cifar10,papr', ',reference', 'digits,'):
    with pytest.raises(ValueError, match="the only suffix is ',paper'"):
      recipes.named('scrub_resnet')(scale)


def test_the_benchmark_is_the_paper_whatever_is_built_in(monkeypatch):
  assert len(set(recipes.PAPER_METHODS)) == 18
  before = recipes.benchmark('cifar10')
  assert {'ft', *before['compare']} == set(recipes.PAPER_METHODS)
  extra = methods.get('ct')._replace(name='extra')
  monkeypatch.setitem(methods.METHODS._builtin, 'extra', extra)
  assert recipes.benchmark('cifar10') == before


def test_changed_method_takes_its_own_settings_and_folder():
  for old in ('ft_resnet', 'neggrad_plus_tinyvit'):
    for scale in SCALES:
      config = recipes.named(old)(scale)
      fidelity = 'paper' if scale.endswith(',paper') else 'reference'
      recipes.change_method(config, 'scrub', fidelity)
      assert config == recipes.named(f'scrub_{old.split("_")[-1]}')(scale)
  config = recipes.benchmark()
  recipes.change_method(config, 'ct')
  assert config['workdir'] == 'workdir/benchmark_digits_ct'


def test_changed_model_takes_its_own_options_and_folder():
  for scale in SCALES:
    config = recipes.named('ct_resnet')(scale)
    recipes.change_model(config, 'vit11m')
    assert config == recipes.named('ct_tinyvit')(scale)


def test_digits_settings_are_those_that_the_search_gave():
  for method in recipes.PAPER_METHODS:
    shipped = tuned.SHIPPED / tuned.DIGITS / f'{method}.json'
    searched = json.loads(shipped.read_text())['hparams']
    assert recipes.method_hparams(method) == searched, method
    assert set(searched) == set(methods.hparams_for(method)), method
    config = recipes.job_config(method)
    config['unlearn']['hparams'] = 'tuned'
    (one,) = settings.from_config(config).unlearners
    assert one.hparams == searched, method


def test_papers_options_replace_searched_ones():
  paper = recipes.method_hparams('scrub', fidelity='paper')
  assert paper['rewind_zero'] == 'original'
  assert paper['learning_rate'] == tuned.small_scale('scrub')['learning_rate']


def test_examples_in_docstrings_run():
  for module in (recipes, arguments):
    done = doctest.testmod(module)
    assert done.attempted and not done.failed, module.__name__


def test_digits_settings_serve_digits_alone():
  small = recipes.job_config('ct')['unlearn']['hparams']
  assert small == tuned.small_scale('ct')
  large = recipes.job_config('ct', scale='cifar10')['unlearn']['hparams']
  assert large == methods.hparams_for('ct')
