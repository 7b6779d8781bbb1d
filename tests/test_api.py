"""The front door: what `import jaxmu` offers, on a tiny network.

One data set and one design serve all tests: programs are compiled once.
"""

import functools
import importlib
import json
import shlex
import subprocess
import sys

import flax.linen as nn
import jax
import numpy as np
import pytest
from PIL import Image

import jaxmu
from jaxmu import method as method_lib
from jaxmu import methods, models
from jaxmu.api import jobs, members, request
from jaxmu.draws import Draws
from jaxmu.study import job as job_lib
from jaxmu.study import stages
from jaxmu.types import Problem, Split

pytestmark = pytest.mark.xdist_group('api')


@functools.cache
def _data():
  return jaxmu.load_data('digits')


@functools.cache
def _design():
  return jaxmu.split(_data(), splits=6, pool=640)


@functools.cache
def _original():
  return jaxmu.train(_data(), _design(), model='tiny', num_epochs=2)


@functools.cache
def _retrained():
  return jaxmu.retrain(_original())


@functools.cache
def _unlearned():
  return jaxmu.unlearn('ft', _original(), num_epochs=1)


def _same(a, b) -> bool:
  pairs = zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True)
  return all(np.array_equal(x, y) for x, y in pairs)


def _message(call, *args, **kwargs) -> str:
  with pytest.raises(ValueError) as caught:
    call(*args, **kwargs)
  text = str(caught.value)
  assert '\n' not in text
  return text


def _refuses(cases) -> None:
  """Each case is (words of the message, function, arguments, options)."""
  silent = []
  for words, call, args, options in cases:
    text = _message(call, *args, **options)
    silent += [(word, text) for word in words if word not in text]
  assert not silent


# The names of the package.


def _python(code: str) -> str:
  return subprocess.run(
    [sys.executable, '-c', code], capture_output=True, text=True, check=True
  ).stdout


def test_import_is_light_and_names_are_known():
  code = (
    'import sys, jaxmu\n'
    "heavy = {'jax', 'matplotlib', 'numpy', 'flax'} & set(sys.modules)\n"
    'print(sorted(heavy), set(jaxmu.__all__) - set(dir(jaxmu)))\n'
    'try: jaxmu.trian\n'
    'except AttributeError as error: print(error)'
  )
  found = _python(code).splitlines()
  assert found == ['[] set()', "module 'jaxmu' has no attribute 'trian'"]


@pytest.mark.slow
def test_unlearn_is_a_function_and_a_command_in_either_order():
  check = "assert callable(jaxmu.unlearn), 'not callable'\n"
  refused = (
    "try: jaxmu.unlearn('ft', 3)\nexcept ValueError as e: print('refused')\n"
    'import inspect\n'
    'print(list(inspect.signature(jaxmu.unlearn).parameters)[0])'
  )
  for code in (
    f'import jaxmu.unlearn\n{check}{refused}',
    f'import jaxmu\n{check}import jaxmu.unlearn\n{check}{refused}',
    f'from jaxmu import unlearn\nimport jaxmu\n{check}{refused}',
  ):
    assert _python(code).split() == ['refused', 'method']
  help_text = subprocess.run(
    [sys.executable, '-m', 'jaxmu.unlearn', '--help'],
    capture_output=True,
    text=True,
    check=True,
  )
  assert '--checkpoint' in help_text.stdout and not help_text.stderr


def test_registries_print_as_tables():
  entries = {
    'METHODS': 'msg',
    'ATTACKS': 'ulira',
    'METRICS': 'accuracy',
    'MODELS': 'resnet18',
    'DATASETS': 'digits',
  }
  for name, entry in entries.items():
    assert entry in repr(getattr(jaxmu, name)), name


# Data and designs.


def _arrays(shape=(60, 8, 8), classes=3):
  rng = np.random.default_rng(0)
  image = rng.integers(0, 256, shape, np.uint8)
  return image, np.arange(shape[0]) % classes


def test_data_comes_from_arrays_folders_and_files(tmp_path):
  image, label = _arrays()
  data = jaxmu.load_data((image, label), test_fraction=0.25, image_size=16)
  assert data.image.shape == (60, 16, 16, 3) and data.num_dev == 45
  assert data.num_classes == 3 and '45 images to train on' in repr(data)
  given = jaxmu.load_data((image, label), test=(image[:5], label[:5]))
  assert given.num_dev == 60 and np.array_equal(given.label[60:], label[:5])
  np.savez(tmp_path / 'set.npz', image=image, label=label)
  assert jaxmu.load_data(tmp_path / 'set.npz').fingerprint == (
    jaxmu.load_data((image, label)).fingerprint
  )
  for k, one in enumerate(image[:12]):
    folder = tmp_path / 'pictures' / f'class{k % 2}'
    folder.mkdir(parents=True, exist_ok=True)
    Image.fromarray(one).save(folder / f'{k}.png')
  pictures = jaxmu.load_data(str(tmp_path / 'pictures'), test_fraction=0.5)
  assert (pictures.num_dev, len(pictures.label)) == (6, 12)
  same = jaxmu.load_data(_data(), mean=(0.5,) * 3, flip=True)
  assert same.transform.mean == (0.5,) * 3 and same.transform.flip
  assert same.transform.std == _data().transform.std


def test_wrong_data_is_refused_with_the_remedy():
  image, label = _arrays()
  load = jaxmu.load_data
  planes = np.zeros((9, 3, 8, 8), np.uint8)
  _refuses(
    [
      (('from 0 to 255', '[0, 1]'), load, ((image * 1.0, label),), {}),
      (('[N, height, width',), load, ((planes, label[:9]),), {}),
      (('60 images', 'labels'), load, ((image, label[:5]),), {}),
      (('(images, labels)',), load, ((image, label, label),), {}),
      (('int', '(images, labels)'), load, (7,), {}),
      (('digit', 'digits'), load, ('digit',), {}),
      (('mean', '3 finite numbers'), load, ('digits',), {'mean': (1.0, 2.0)}),
      (('std',), load, ('digits',), {'std': 0.0}),
    ]
  )


def test_designs_divide_as_asked():
  data = _data()
  shares = jaxmu.split(data, forget=0.2, splits=2, forget_sets=2, seed=3)
  assert len(shares.split) == 4 and shares.forget.shape == (4, 128)
  one = jaxmu.split(data, forget='class:3')
  assert set(data.label[one.forget[0]]) == {3}
  ids = jaxmu.split(data, forget=[7, 3], val=0.1)
  assert ids.forget.tolist() == [[3, 7]] and len(ids.val) == 144
  together = np.concatenate([ids.retain[0], ids.forget[0], ids.val])
  assert np.array_equal(np.sort(together), np.arange(data.num_dev))
  everything = jaxmu.split(data, forget=np.arange(data.num_dev) < 5)
  assert everything.forget.shape == (1, 5) and not len(everything.val)


def test_impossible_designs_are_refused():
  split, data = jaxmu.split, _data()
  _refuses(
    [
      (('1437', '0..1436'), split, (data,), {'forget': [3, 1437]}),
      (('repeats 3',), split, (data,), {'forget': [3, 3]}),
      (('forget is empty',), split, (data,), {'forget': []}),
      (('integers',), split, (data,), {'forget': [0.5]}),
      (
        ('in val and in forget', '4'),
        split,
        (data,),
        {'forget': [4], 'val': [4]},
      ),
      (('splits=1',), split, (data,), {'forget': 'class:3', 'splits': 4}),
      (('complementary', 'choose 4'), split, (data,), {'splits': 3}),
      (('pool',), split, (data,), {'splits': 2, 'val': 0.1}),
      (('nothing is left',), split, (data,), {'forget': np.arange(1437)}),
    ]
  )


# Training and unlearning.


def test_a_job_and_the_functions_train_the_same_bits(tmp_path, capsys):
  fields = {
    'model.options': {},
    'splits.num_splits': 6,
    'splits.forget_sets': 1,
    'splits.pool': 640,
    'splits.seed': 0,
    'train.num_epochs': 2,
    'unlearn.hparams.num_epochs': 1,
    'timing.repeats': 1,
    'run.shard': 3,
    'run.chunk': 1,
    'run.devices': 2,
  }
  run = functools.partial(
    jaxmu.run, 'ft', model='tiny', workdir=tmp_path, seed=0
  )
  job = run(overrides=fields)
  for ours in (_original(), _retrained(), _unlearned()):
    theirs = job.models(ours.name)
    assert _same(ours.variables, theirs.variables), ours.name
    assert np.array_equal(ours.losses, theirs.losses)
    assert np.array_equal(ours.members.split, theirs.members.split)
  scores = stages.read_predictions(job._job.populations['ft'])
  ours = jaxmu.predict(_unlearned())
  assert np.array_equal(ours.log_odds, scores.log_odds)
  # The result reads the folder, and `load` opens it again.
  loaded = jaxmu.load(tmp_path)
  assert loaded.methods == ['original', 'retrain', 'ft']
  assert loaded['ft', 'ta'] == job['ft', 'ta'] and job.report.is_file()
  assert 'Retrained' in repr(job)
  assert len(job.to_pandas()) == len(job.rows)
  assert 'did you mean' in _message(job.models, 'ftt')
  with pytest.raises(ValueError, match='in the file of every method; choose'):
    job.scores('original')
  # An audit of the same models gives the numbers of the job.
  populations = [job.models('ft'), job.models('retrain')]
  own = jaxmu.audit(populations[0], against=populations[1])
  differ = [
    (row, own[row.method, row.metric])
    for row in job.rows
    if row.metric not in ('seconds', 'rte', 'rte_cold')
    and not np.allclose(
      [row.value, row.low, row.high, row.retrained],
      [
        getattr(own[row.method, row.metric], field)
        for field in ('value', 'low', 'high', 'retrained')
      ],
      rtol=1e-6,
      equal_nan=True,
    )
  ]
  assert not differ
  audited = jaxmu.audit(job.scores('ft'), attacks=['loss'])
  assert np.isfinite(audited['unlearned', 'loss_auc'].value)
  capsys.readouterr()
  run(overrides=fields)
  assert 'nothing redone' in capsys.readouterr().out


def test_a_list_trains_every_model_with_every_value_in_one_program():
  original, method = _original(), methods.get('ft')
  values = [1e-3, 1e-2, 1e-1]
  _unlearned()
  trainer = original.setup.trainer(method, 6)
  compiled = list(trainer._programs)
  tried = jaxmu.unlearn('ft', original, learning_rate=values, num_epochs=1)
  assert original.setup.trainer(method, 6) is trainer
  assert list(trainer._programs) == compiled  # that of a single value
  assert len(tried) == 18 and len(tried.variants) == 3
  for k, value in enumerate(values):
    one = jaxmu.unlearn('ft', original, learning_rate=value, num_epochs=1)
    part = tried.select(slice(6 * k, 6 * k + 6))
    assert _same(one.variables, part.variables)
    assert part.variants == [f'learning_rate={value:g}']
  table = tried.to_pandas()
  assert table['learning_rate'].tolist() == np.repeat(values, 6).tolist()


@pytest.mark.slow
def test_a_value_per_model_and_groups_of_statics():
  original = _original()
  rates = np.array([1e-3, 1e-2, 1e-1, 0.5, 0.2, 0.3])
  each = jaxmu.unlearn('ft', original, learning_rate=rates, num_epochs=1)
  assert len(each) == 6 and each.variants == ['']
  for k in (0, 3):
    one = jaxmu.unlearn(
      'ft', original, learning_rate=float(rates[k]), num_epochs=1
    )
    assert _same(one.model(k), each.model(k))
  # Other numbers of epochs and of steps, in several programs.
  mixed = jaxmu.unlearn('ft', original, batch_size=[64, 32], num_epochs=[1, 2])
  assert mixed.losses.shape == (12, 2)
  assert np.isnan(mixed.losses[:6, 1]).all()
  assert np.isfinite(mixed.losses[6:]).all()
  assert _same(mixed.select(slice(0, 6)).variables, _unlearned().variables)
  forced = jaxmu.unlearn(
    'ft', original, learning_rate=rates, num_epochs=0, every_value=True
  )
  assert len(forced) == 36


def test_what_lists_mean():
  Hparams = methods.get('ga').Hparams
  expand = functools.partial(members.expand, Hparams, {})
  found = expand({'learning_rate': [0.1, 0.2], 'num_epochs': (1, 2)}, 3)
  naive = [
    {'learning_rate': rate, 'num_epochs': epochs}
    for rate, epochs in ((0.1, 1), (0.2, 2))
    for _ in range(3)
  ]
  assert found.hparams == naive and found.base.tolist() == [0, 1, 2] * 2
  assert found.variant[0] == 'learning_rate=0.1 num_epochs=1'
  assert expand({'learning_rate': np.float32(0.5)}, 2).variant == ['', '']
  _refuses(
    [
      (
        ('learning_rat', "did you mean 'learning_rate'"),
        expand,
        ({'learning_rat': 1.0}, 1),
        {},
      ),
      (('learning_rate = []',), expand, ({'learning_rate': []}, 1), {}),
      (
        ('2 values', '3 values'),
        expand,
        ({'learning_rate': [1, 2], 'num_epochs': [1, 2, 3]}, 1),
        {},
      ),
      (
        ('learning_rate = -1', '(0'),
        expand,
        ({'learning_rate': [0.1, -1.0]}, 1),
        {},
      ),
      (('num_epochs', 'whole'), expand, ({'num_epochs': 1.5}, 1), {}),
    ]
  )


def test_a_population_agrees_with_the_plain_loop():
  original, member = _original(), 2
  found = _unlearned()
  setup = found.setup
  method = methods.get('ft')
  index = job_lib.index_sets(setup.design, found.members)
  split = Split(*(x[member] for x in (index.retain, index.forget, index.val)))
  keys = job_lib.draw_keys(setup.root, 'ft', found.members, False)
  problem = Problem(setup.task(), split, original.model(member))
  compiled = method._replace(epoch=jax.jit(method.epoch))
  settings = jaxmu_hparams(method, found.hparams[member])
  variables, _ = method_lib.run(
    compiled, settings, Draws(keys[member]), problem
  )
  for a, b in zip(
    jax.tree.leaves(variables),
    jax.tree.leaves(found.model(member)),
    strict=True,
  ):
    np.testing.assert_allclose(a, b, rtol=2e-5, atol=2e-6)


def jaxmu_hparams(method, values):
  from jaxmu import hparams

  return hparams.from_config(method.Hparams, values)


class Net(nn.Module):
  classes: int = 10

  @nn.compact
  def __call__(self, images, train: bool):
    x = nn.Conv(4, (3, 3), strides=4)(images)
    x = nn.relu(nn.BatchNorm(use_running_average=not train)(x))
    return nn.Dense(self.classes)(x.mean((1, 2)))


def test_a_custom_method_on_a_custom_model(tmp_path):
  from jaxmu.methods import _skeleton

  original = jaxmu.train(_data(), _design(), model=Net(), num_epochs=1, seeds=2)
  assert len(original) == 12 and original.setup.model_name == ''
  found = jaxmu.unlearn(_skeleton, original, num_epochs=1)
  assert found.name == _skeleton.METHOD.name in repr(found)
  assert not _same(found.variables, original.variables)
  folder = found.save(tmp_path / 'found')
  assert 'load(path, model=...)' in _message(jaxmu.load, folder)
  loaded = jaxmu.load(folder, model=Net())
  assert _same(loaded.variables, found.variables)


def test_a_diverged_model_is_reported():
  found = jaxmu.unlearn(
    'ft', _original(), learning_rate=[1e38] * 3 + [1e-3] * 3, num_epochs=1
  )
  assert (found.failed >= 0).tolist() == [True] * 3 + [False] * 3
  assert 'failed in epoch' in repr(found)
  audit = jaxmu.audit(found, attacks=())
  assert audit.failed['ft'] == (3, 6)
  assert '3 of 6 models' in repr(audit)


def test_wrong_calls_are_refused_before_training():
  train, unlearn = jaxmu.train, jaxmu.unlearn
  data, design, original = _data(), _design(), _original()
  one = original.model(0)
  single = {'data': data, 'forget': [3], 'model': 'tiny'}
  _refuses(
    [
      (('resnet81',), train, (data, design), {'model': 'resnet81'}),
      (
        ('learning_rte', "did you mean 'learning_rate'"),
        train,
        (data, design),
        {'model': 'tiny', 'learning_rte': 0.1},
      ),
      (('seeds = 0',), train, (data, design), {'model': 'tiny', 'seeds': 0}),
      (
        ('seed = 4294967296',),
        train,
        (data, design),
        {'model': 'tiny', 'seed': 2**32},
      ),
      (
        ('precision',),
        train,
        (data, design),
        {'model': 'tiny', 'precision': 'fp8'},
      ),
      (
        ('seed_mode',),
        train,
        (data, design),
        {'model': 'tiny', 'seed_mode': 'x'},
      ),
      (('example', 'design'), train, (_arrays(), design), {'model': 'tiny'}),
      (('unknown method',), unlearn, ('mgs', original), {}),
      (('jaxmu.retrain',), unlearn, ('retrain', original), {}),
      (('jaxmu.train',), unlearn, ('ft', _unlearned()), {}),
      (('jaxmu.train',), jaxmu.retrain, (_unlearned(),), {}),
      (('leave them out',), unlearn, ('ft', original), {'forget': [3]}),
      (('needs data=',), unlearn, ('ft', one), {}),
      (('int', 'params'), unlearn, ('ft', 3), single),
      (
        ('has shape', 'model_options'),
        unlearn,
        ('ft', one),
        {**single, 'model_options': {'width': 3}},
      ),
      (('no file',), unlearn, ('ft', 'none.safetensors'), single),
      (('val',), unlearn, ('kde', one), single),
      (
        ('train the originals with several',),
        jaxmu.retrain,
        (original,),
        {'num_epochs': [1, 2]},
      ),
    ]
  )


# Results.


def test_models_are_saved_exported_and_loaded(tmp_path):
  found = _unlearned()
  folder = found.save(tmp_path / 'ft')
  loaded = jaxmu.load(folder)
  assert _same(loaded.variables, found.variables)
  assert loaded.original is not None
  assert _same(loaded.original.variables, _original().variables)
  assert repr(loaded) == repr(found) and loaded.failed.tolist() == [-1] * 6
  assert _same(loaded.members, found.members)
  assert np.array_equal(loaded.design.forget, _design().forget)
  # Saved again in its place, and never over something else.
  found.save(folder)
  (tmp_path / 'mine').mkdir()
  assert 'holds no saved models' in _message(found.save, tmp_path / 'mine')
  (folder / 'models.npz').write_bytes(b'PK')
  assert 'damaged' in _message(jaxmu.load, folder)

  pytest.importorskip('safetensors', reason='safetensors is not installed')
  pattern = tmp_path / 'net{seed}_{split}.safetensors'
  paths = _original().export(pattern)
  assert [p.name for p in paths] == [f'net0_{k}.safetensors' for k in range(6)]
  files = str(tmp_path / 'net*.safetensors')
  options = {'data': _data(), 'design': _design(), 'model': 'tiny'}
  originals = jaxmu.load(files, **options)
  assert _same(originals.variables, _original().variables)
  again = jaxmu.unlearn('ft', originals, num_epochs=1)
  assert _same(again.variables, found.variables)
  assert len(jaxmu.load(paths * 2, **options)) == 12
  (one,) = found.export(tmp_path / 'one.safetensors', member=1)
  assert one.is_file()
  _refuses(
    [
      (
        ('same name', '{member}'),
        found.export,
        (tmp_path / 'x.safetensors',),
        {},
      ),
      (('{sed}', '{seed}'), found.export, ('{sed}.safetensors',), {}),
      (('member = 9', '0 to 5'), found.model, (9,), {}),
      (('3 checkpoints', '6 training sets'), jaxmu.load, (paths[:3],), options),
      (('holds weights alone', 'data and design'), jaxmu.load, (files,), {}),
      (('matches no file',), jaxmu.load, (tmp_path / 'none*',), {}),
      (('no file or folder',), jaxmu.load, (tmp_path / 'none',), {}),
      (
        ('no record.json', 'no finished job'),
        jaxmu.load,
        (tmp_path / 'mine',),
        {},
      ),
    ]
  )


def test_data_without_a_name_is_saved_with_the_models(tmp_path):
  data = jaxmu.load_data(_arrays((80, 8, 8)), mean=0.4, std=0.2)
  design = jaxmu.split(data, forget=[1, 2])
  found = jaxmu.train(data, design, model='tiny', num_epochs=0)
  loaded = jaxmu.load(found.save(tmp_path / 'found'))
  assert loaded.data.fingerprint == data.fingerprint
  assert loaded.data.transform == data.transform
  other = jaxmu.load_data(_arrays((90, 8, 8)))
  assert 'other images' in _message(jaxmu.load, tmp_path / 'found', data=other)


def test_predictions_agree_with_the_network():
  found = _original()
  data = _data()
  images = data.image[:5]
  answers = jaxmu.predict(found, images)
  x = (images / 255 - np.array(data.transform.mean)) / data.transform.std
  for p in range(len(found)):
    logits, _ = models.apply(
      found.setup.model, found.model(p), x.astype(np.float32), train=False
    )
    np.testing.assert_allclose(answers.logits[p], logits, rtol=1e-4, atol=1e-5)
  odds = jaxmu.predict(found)
  probability = np.take_along_axis(
    odds.probabilities.astype(np.float64), data.label[None, :, None], axis=2
  )[..., 0]
  naive = np.log(probability) - np.log1p(-probability)
  np.testing.assert_allclose(odds.log_odds, naive, rtol=1e-3, atol=1e-4)
  assert np.array_equal(odds.correct, odds.label == data.label)
  assert odds.to_pandas()['accuracy'].tolist() == odds.correct.mean(1).tolist()
  some = jaxmu.predict(found, (images, data.label[:5]))
  assert np.array_equal(some.correct, odds.correct[:, :5])
  _refuses(
    [
      (('labels', '(images, labels)'), lambda: answers.log_odds, (), {}),
      (('[0, 1]',), jaxmu.predict, (found, images / 2.0), {}),
      (('label',), jaxmu.predict, (found, (images, data.label[:5] + 90)), {}),
    ]
  )


def test_audits_give_rows_tables_frames_pictures_and_reports(tmp_path):
  unlearned, retrained = _unlearned(), _retrained()
  tried = jaxmu.unlearn(
    'ft', _original(), learning_rate=[1e-3, 1e-2, 1e-1], num_epochs=1
  )
  found = jaxmu.audit(
    [unlearned, tried], against=retrained, attacks=['loss', 'ulira']
  )
  assert {row.method for row in found.rows} == {
    'retrain',
    'original',
    'ft',
    *(f'ft {variant}' for variant in tried.variants),
  }
  # A naive twin: accuracy on the test set, averaged over pairs of splits.
  correct = jaxmu.predict(unlearned).correct[:, _data().num_dev :]
  row = found['ft', 'ta']
  pairs = correct.mean(axis=1).reshape(3, 2).mean(axis=1)
  assert row.value == pytest.approx(pairs.mean()) and row.n == 3
  assert row.retrained == found['retrain', 'ta'].value
  assert row.low < row.value < row.high
  forgotten = jaxmu.predict(unlearned).correct
  fa = [forgotten[p, s].mean() for p, s in enumerate(_design().forget)]
  assert found['ft', 'fa'].value == pytest.approx(np.mean(fa))
  excess = found['ft', 'excess_loss_auc']
  gap = found['ft', 'loss_auc'].value - found['retrain', 'loss_auc'].value
  assert excess.value == pytest.approx(gap)
  assert 'Retrained' in repr(found) and 'Loss attack' in found.table()
  assert len(found.to_pandas()) == len(found.rows)
  assert found.plot().axes and _unlearned().plot().axes
  assert 'accuracy' in _message(found.plot, 'pie')
  folder = found.save(tmp_path / 'report')
  assert (folder / 'report.html').is_file()
  again = jaxmu.audit(folder / 'scores' / 'ft.npz', attacks=['loss'])
  assert again['unlearned', 'loss_auc'].value == pytest.approx(
    found['ft', 'loss_auc'].value
  )
  assert again['retrain', 'loss_auc'].value == pytest.approx(
    found['retrain', 'loss_auc'].value
  )
  # Distances between weights, and counted work, as in the table of a job.
  weights = [
    [m.model(p)['params'] for p in range(6)] for m in (unlearned, retrained)
  ]
  gaps = []
  for ours, theirs in zip(*weights, strict=True):
    flat = [
      np.concatenate([np.ravel(x) for x in jax.tree.leaves(one)])
      for one in (ours, theirs)
    ]
    gaps.append(np.linalg.norm(flat[0] - flat[1]) / np.linalg.norm(flat[0]))
  distance = found['ft', 'distance_retrained']
  assert distance.value == pytest.approx(np.mean(gaps), rel=1e-4)
  assert np.isfinite(found['ft', 'distance_original'].value)
  assert found['original', 'distance_original'].value == 0
  assert found['ft', 'rte_counted'].value > 1
  assert found['retrain', 'rte_counted'].value == 1
  alone = jaxmu.audit(unlearned, attacks=())
  assert {r.metric for r in alone.rows} >= {'ra', 'fa', 'ta'}
  assert not [r for r in alone.rows if r.method == 'retrain']
  with pytest.raises(KeyError, match='ta'):
    found['ft', 'test']
  other = jaxmu.split(_data(), splits=2, pool=400)
  elsewhere = jaxmu.train(_data(), other, model='tiny', num_epochs=0)
  (tmp_path / 'bad.npz').write_bytes(b'x')
  _refuses(
    [
      (('jaxmu.retrain',), jaxmu.audit, (unlearned,), {'against': unlearned}),
      (('different designs',), jaxmu.audit, ([unlearned, elsewhere],), {}),
      (('int',), jaxmu.audit, (3,), {}),
      (('fprs', '2.0'), jaxmu.audit, (unlearned,), {'fprs': [2.0]}),
      (('fprs = 0.1; give a list',), jaxmu.audit, (unlearned,), {'fprs': 0.1}),
      (
        ("attacks = 'loss'; give a list",),
        jaxmu.audit,
        (unlearned,),
        {'attacks': 'loss'},
      ),
      (
        ('unknown attack', 'loss'),
        jaxmu.audit,
        (unlearned,),
        {'attacks': ['los']},
      ),
      (('no file',), jaxmu.audit, (tmp_path / 'none.npz',), {}),
      (('bad.npz',), jaxmu.audit, (tmp_path / 'bad.npz',), {}),
      (
        ('no model was retrained',),
        jaxmu.audit,
        (unlearned,),
        {'against': retrained.select([0])},
      ),
    ]
  )


def test_a_sweep_over_originals_reaches_the_audit():
  original = jaxmu.train(
    _data(), _design(), model='tiny', num_epochs=2, weight_decay=[0.0, 1e-3]
  )
  assert len(original) == 12 and original.variants[1] == 'weight_decay=0.001'
  unlearned = jaxmu.unlearn('ft', original, num_epochs=1)
  retrained = jaxmu.retrain(original)
  assert len(unlearned) == len(retrained) == 12
  found = jaxmu.audit(unlearned, against=retrained, attacks=())
  assert found['ft weight_decay=0.001', 'ta'].n == 3


def test_a_job_refuses_names_that_do_not_exist(tmp_path):
  run = functools.partial(jaxmu.run, model='tiny', workdir=tmp_path)
  _refuses(
    [
      (('mgs',), run, ('mgs',), {}),
      (
        ('trian', "did you mean 'train'"),
        run,
        ('ft',),
        {'trian': {'num_epochs': 1}},
      ),
      (('trian', "did you mean 'train'"), run, ('ft',), {'trian': {}}),
      (("compare = 'ga'; give a list",), run, ('ft',), {'compare': 'ga'}),
      (('num_epoch', 'num_epochs'), run, ('ft',), {'train': {'num_epoch': 1}}),
      (('has no fields',), run, ('ft',), {'overrides': {'seed.x': 1}}),
      (('jaxmu.prepare',), run, ('ft',), {'data': _data()}),
      (('unknown data set',), run, ('ft',), {'data': 'digit'}),
    ]
  )
  assert not list(tmp_path.iterdir())


def test_the_printed_command_of_a_job_makes_it_again(monkeypatch):
  given = {
    'data': 'digits',
    'model': 'tiny',
    'workdir': "a {blank} 'folder'",
    'compare': ['ft'],
    'overrides': {
      'train.learning_rate': np.float32(0.5),
      'model.options': {'width': 4},
      'metrics': ('a.py',),
    },
  }
  program, flag, code = shlex.split(jobs._command('ga', **given))
  assert (program, flag) == ('python', '-c')
  calls = []
  monkeypatch.setattr(
    jaxmu, 'run', lambda *args, **fields: calls.append((args, fields))
  )
  exec(code, {})
  assert calls == [(('ga',), given)]


def test_an_empty_section_changes_nothing():
  kept = jobs.make_config('ft', model='tiny')
  overrides = {'splits': {}, 'unlearn': {}}
  assert jobs.make_config('ft', model='tiny', overrides=overrides) == kept


# A deletion request.


def test_the_command_answers_a_deletion_request(tmp_path, capsys):
  pytest.importorskip('safetensors', reason='safetensors is not installed')
  command = importlib.import_module('jaxmu.unlearn')
  (checkpoint,) = _original().export(tmp_path / 'net.safetensors', member=1)
  ids = tmp_path / 'ids.txt'
  ids.write_text('3\n14\n159\n')
  options = {
    'checkpoint': checkpoint,
    'data': 'digits',
    'forget': ids,
    'method': 'ft',
    'out': tmp_path / 'out',
    'model': 'tiny',
    'hparams.num_epochs': 1,
    'hparams.learning_rate': 0.02,
  }
  words = [f'--{k}={v}' for k, v in options.items()]
  command.main(words)
  printed = capsys.readouterr().out
  assert 'accuracy on forget' in printed and 'report.md' in printed
  out = tmp_path / 'out'
  settings = json.loads((out / 'settings.json').read_text())
  assert settings['method']['hparams']['learning_rate'] == 0.02
  assert settings['forget']['indices'] == [3, 14, 159]
  report = (out / 'report.md').read_text()
  for text in ('What was checked', 'What could not be checked', 'retrained'):
    assert text in report
  # The same as from Python, and in the form in which it came.
  found = jaxmu.unlearn(
    'ft',
    checkpoint,
    data='digits',
    forget=[3, 14, 159],
    model='tiny',
    num_epochs=1,
    learning_rate=0.02,
  )
  written = jaxmu.load(
    out / 'net.safetensors',
    data='digits',
    design=jaxmu.split('digits', forget=[3, 14, 159]),
    model='tiny',
  )
  assert _same(found.variables, written.variables)
  checks = {c['name']: c for c in settings['checks']}
  after = jaxmu.predict(found)
  test = after.correct[0, _data().num_dev :]
  assert checks['accuracy on test']['after'] == pytest.approx(test.mean())

  wrong = []
  for word, expected in {
    '--hparams.learning_rat=1': "did you mean 'learning_rate'",
    '--hparam.num_epochs=1': "did you mean '--hparams.NAME=VALUE'",
    '--metod=ft': "did you mean '--method'",
    '--method=mgs': 'mgs',
    '--checkpoint=none.safetensors': 'none.safetensors',
    '--data=digit': 'digit',
    f'--out={tmp_path}': 'would be replaced',
    f'--val={ids}': 'in val and in forget',
    '--hparams.learning_rate=[1,2]': 'one value',
    '--model_options.widht=3': 'widht',
  }.items():
    with pytest.raises(SystemExit) as caught:
      command.main([*words, word])
    text = str(caught.value.code)
    if expected not in text or not text.startswith('error: ') or '\n' in text:
      wrong.append((word, text))
  assert not wrong


def test_checks_of_a_deletion_against_naive_twins():
  rng = np.random.default_rng(0)
  member, outside = rng.normal(1, 1, 30).round(1), rng.normal(0, 1, 40).round(1)
  auc, low, high = request.auc_interval(member, outside)
  wins = (member[:, None] > outside) + 0.5 * (member[:, None] == outside)
  assert auc == pytest.approx(wins.mean()) and low < auc < high
  # DeLong's components, as double loops.
  of_member = [np.mean([w for w in row]) for row in wins]
  of_outside = [np.mean([w for w in row]) for row in wins.T]
  variance = np.var(of_member, ddof=1) / 30 + np.var(of_outside, ddof=1) / 40
  assert high - low == pytest.approx(2 * 1.959964 * np.sqrt(variance), rel=1e-5)
  # Covered about 19 times in 20 where nothing is to be found.
  hits = 0
  for _ in range(400):
    _, low, high = request.auc_interval(
      rng.normal(size=25), rng.normal(size=60)
    )
    hits += low <= 0.5 <= high
  assert 360 <= hits <= 396
  assert np.isnan(request.auc_interval(member[:1], outside)[1])


def test_a_deletion_says_what_is_wrong_with_the_original():
  wrong = jaxmu.load_data('digits', mean=0.9, std=0.01)
  found = request.delete(
    'ft',
    _original().model(0),
    data=wrong,
    forget=np.flatnonzero(wrong.label[: wrong.num_dev] == 3)[:9],
    model='tiny',
    num_epochs=0,
  )
  assert 'normalisation' in found.notes[0]
  assert any('classes to forget' in note for note in found.notes)
  assert 'same answer as the original on retain' in repr(found)


def test_a_deletion_from_weights_that_are_not_finite_says_so():
  broken = jax.tree.map(lambda x: np.full_like(x, np.nan), _original().model(0))
  found = request.delete(
    'ft', broken, data=_data(), forget=[3, 14], model='tiny', num_epochs=1
  )
  assert any('start from another checkpoint' in note for note in found.notes)
  assert not any('smaller learning_rate' in note for note in found.notes)


def test_a_method_that_raises_is_named_with_its_place():
  def epoch(hparams, draws, problem, state, epoch):
    raise RuntimeError('my own trouble')

  broken = methods.get('ft')._replace(name='broken', epoch=epoch)
  said = _message(jaxmu.unlearn, broken, _original(), num_epochs=1)
  assert "method 'broken' raises RuntimeError: my own trouble (test_api" in said


def test_a_folder_that_cannot_be_written_costs_no_unlearning(
  tmp_path, monkeypatch
):
  # `jaxmu.unlearn` is the function; the module of the command is behind it.
  unlearn = importlib.import_module('jaxmu.unlearn')

  def fail(*args, **options):
    raise AssertionError('unlearning began')

  monkeypatch.setattr(request, 'delete', fail)
  (tmp_path / 'net.pth').write_bytes(b'weights')
  (tmp_path / 'file').write_text('')
  for out, says in (
    (tmp_path, 'would be replaced'),
    ('file', 'cannot be made'),
  ):
    words = {'checkpoint': tmp_path / 'net.pth', 'forget': 'x'}
    words['out'] = tmp_path / out
    with pytest.raises(SystemExit, match=says):
      unlearn.main([f'--{name}={value}' for name, value in words.items()])
