"""Checkpoints of every kind are read correctly and written back."""

import collections
import io
import json
import pickle
import struct
import sys
import warnings
import zipfile

import flax.linen as nn
import flax.serialization
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxmu import models
from jaxmu.models import checkpoint_files, checkpoints, pytorch, pytorch_names

TORCH = 'torch is not installed: pip install torch'
ENDINGS = ('safetensors', 'pth', 'msgpack', 'npz', 'orbax')


class Net(nn.Module):
  """A custom network with a scalar parameter, that names a module `net`."""

  @nn.compact
  def __call__(self, x, train: bool):
    x = x * self.param('gain', nn.initializers.ones, ())
    x = nn.Conv(4, (3, 3), strides=2, name='net')(x)
    x = nn.relu(nn.BatchNorm(use_running_average=not train)(x))
    return nn.Dense(5)(x.reshape((x.shape[0], -1)))


def _tiny(classes=5, **options):
  return models.build('tiny', num_classes=classes, options=options)


def _variables(model, seed=0):
  """Random variables, of full size without a compilation."""
  image_shape = getattr(model, 'image_shape', (32, 32, 3))
  shapes = jax.eval_shape(
    lambda key: models.init(model, key, image_shape), jax.random.key(0)
  )
  rng = np.random.default_rng(seed)
  return jax.tree.map(
    lambda x: 0.1 + 0.1 * rng.random(x.shape, np.float32), shapes
  )


def _state(model=None, seed=0):
  """The state dict of PyTorch of a model's random variables."""
  model = _tiny() if model is None else model
  return pytorch_names.to_torch(model, _variables(model, seed))


def _same(a, b):
  jax.tree.map(np.testing.assert_array_equal, a, b)


def _put(path, form, tree, note=None):
  """Write a tree of arrays as a file of some form and return its path."""
  checkpoint_files.write(path, checkpoint_files.Contents(form, tree, note))
  return path


MODELS = {
  'resnet18': models.build('resnet18', num_classes=10),
  'tiny': _tiny(),
  'vit11m': models.build('vit11m', num_classes=10),
  'custom': models.build(Net(), num_classes=5, image_shape=(8, 8, 3)),
}


@pytest.mark.parametrize('ending', ENDINGS)
def test_what_is_written_is_read_with_the_same_bits(ending, tmp_path):
  for name, model in MODELS.items():
    variables = _variables(model)
    checkpoints.write(model, variables, tmp_path / f'{name}.{ending}')
    # Content decides, not the ending.
    other = tmp_path / f'{name}_best.pth.tar'
    (tmp_path / f'{name}.{ending}').rename(other)
    _same(checkpoints.read(model, other), variables)


def test_the_package_safetensors_reads_and_writes_the_same(tmp_path):
  numpy = pytest.importorskip('safetensors.numpy')
  model, state = _tiny(), _state()
  checkpoints.write(model, _variables(model), tmp_path / 'a.safetensors')
  _same(numpy.load_file(tmp_path / 'a.safetensors'), state)
  state = {name: np.ascontiguousarray(value) for name, value in state.items()}
  numpy.save_file(state, tmp_path / 'b.safetensors')
  _same(checkpoints.read(model, tmp_path / 'b.safetensors'), _variables(model))


def test_a_file_in_torch_layout_means_what_it_says(tmp_path):
  """A state dict by hand: linear [out, in], convolution [out, in, h, w]."""
  rng = np.random.default_rng(1)
  width = 2
  state = {
    'conv1.weight': rng.standard_normal((width, 3, 3, 3), np.float32),
    'conv2.weight': rng.standard_normal((2 * width, width, 3, 3), np.float32),
    'fc.weight': rng.standard_normal((5, 2 * width), np.float32),
    'fc.bias': rng.standard_normal(5, np.float32),
  }
  for norm, size in (('bn1', width), ('bn2', 2 * width)):
    for name in ('weight', 'bias', 'running_mean', 'running_var'):
      state[f'{norm}.{name}'] = rng.random(size, np.float32)
    state[f'{norm}.num_batches_tracked'] = np.array(7)
  image = rng.standard_normal((4, 4, 3), np.float32)
  model = _tiny(width=width)
  path = _put(tmp_path / 'a', 'safetensors', state)
  variables = checkpoints.read(model, path)
  logits, _ = models.apply(model, variables, image[None], train=False)
  np.testing.assert_allclose(logits[0], _naive(state, image), atol=1e-5)


def _naive(state, image):
  """Run the network pixel by pixel in float64, from torch's arrays."""
  x = image.astype(np.float64)
  for layer in '12':
    kernel = state[f'conv{layer}.weight'].astype(np.float64)
    padded = np.pad(x, ((1, 1), (1, 1), (0, 0)))
    size = x.shape[0] // 2
    x = np.zeros((size, size, len(kernel)))
    for i in range(size):
      for j in range(size):
        window = padded[2 * i : 2 * i + 3, 2 * j : 2 * j + 3]
        for k, weights in enumerate(kernel):
          x[i, j, k] = np.sum(weights * window.transpose(2, 0, 1))
    norm = f'bn{layer}'
    x = (x - state[f'{norm}.running_mean']) / np.sqrt(
      state[f'{norm}.running_var'] + 1e-5
    )
    x = np.maximum(x * state[f'{norm}.weight'] + state[f'{norm}.bias'], 0)
  return state['fc.weight'] @ x.mean((0, 1)) + state['fc.bias']


@pytest.mark.parametrize('form', ['safetensors', 'torch'])
@pytest.mark.parametrize('dtype', [np.float16, jnp.bfloat16, np.float64])
def test_other_precisions_are_converted_and_it_is_said(form, dtype, tmp_path):
  state = {name: value.astype(dtype) for name, value in _state().items()}
  path = _put(tmp_path / 'a', form, state)
  name = np.dtype(dtype).name
  with pytest.warns(UserWarning, match=f'{name} were converted to float32'):
    found = checkpoints.read(_tiny(), path)
  assert {x.dtype.name for x in jax.tree.leaves(found)} == {'float32'}
  expected = pytorch_names.from_torch(
    _tiny(), {n: v.astype(np.float32) for n, v in state.items()}
  )
  _same(found, expected)
  with warnings.catch_warnings():
    warnings.simplefilter('error')
    _put(path, form, _state())
    checkpoints.read(_tiny(), path)


def test_weights_that_are_not_finite_are_named(tmp_path):
  state = {name: np.array(value) for name, value in _state().items()}
  state['fc.bias'][:2] = np.nan, np.inf
  path = _put(tmp_path / 'a', 'torch', state)
  with pytest.warns(UserWarning, match='2 non-finite weights, in fc.bias'):
    checkpoints.read(_tiny(), path)


def test_a_population_is_its_files_in_order(tmp_path):
  model = _tiny()
  members = [_variables(model, seed) for seed in range(11)]
  stacked = jax.tree.map(lambda *x: np.stack(x), *members)
  paths = [tmp_path / f'seed{i}.safetensors' for i in range(11)]
  for member, path in zip(members, paths, strict=True):
    checkpoints.write(model, member, path)
  _same(checkpoints.read_population(model, paths), stacked)
  pattern = str(tmp_path / 'seed*.safetensors')  # seed2 before seed10
  _same(checkpoints.read_population(model, pattern), stacked)
  one = checkpoints.read_population(model, str(paths[3]))
  _same(jax.tree.map(lambda x: x[0], one), members[3])
  with pytest.raises(FileNotFoundError, match='no file matches'):
    checkpoints.read_population(model, str(tmp_path / 'none*'))
  with pytest.raises(ValueError, match='no files'):
    checkpoints.read_population(model, [])
  with pytest.raises(
    ValueError, match='11 members, write each to a separate file'
  ):
    checkpoints.write(model, stacked, tmp_path / 'a.pth')


def _nested(state):
  """The variables of a state dict of PyTorch."""
  return jax.tree.map(np.asarray, pytorch_names.from_torch(_tiny(), state))


def _prefixed(*prefixes):
  return lambda state: {''.join(prefixes) + n: v for n, v in state.items()}


# How common tools wrap and prefix a state dict of PyTorch.
TORCH_WRAPPINGS = {
  'bare': lambda s: s,
  'module': _prefixed('module.'),
  'compiled': _prefixed('_orig_mod.', 'module.'),
  'repeated': _prefixed('module.', '_orig_mod.', 'module.', 'model.'),
  'net': _prefixed('net.', 'backbone.'),
  'body_alone': lambda s: {
    n if n.startswith('fc') else f'backbone.{n}': v for n, v in s.items()
  },
  **{
    name: lambda s, name=name: {name: s, 'epoch': np.array(3)}
    for name in checkpoints.WRAPPERS
  },
  'both': lambda s: {'model': {'state_dict': _prefixed('module.')(s)}},
  'optimiser': lambda s: {
    'optimizer': {'state': {'0': {'exp_avg': np.zeros(3)}}},
    'state_dict': s,
  },
}
# How Flax and NNX variables are laid out.
FLAX_WRAPPINGS = {
  'variables': lambda v: v,
  'state': lambda v: {**v, 'step': np.array(3), 'opt_state': {'0': v}},
  'wrapped': lambda v: {'model': v, 'config': {'lr': 0.1}},
  'joined': lambda v: {
    name: {**v['params'][name], **v['batch_stats'].get(name, {})}
    for name in v['params']
  },
  'nnx': lambda v: jax.tree.map(lambda x: {'value': x}, v),
}


def test_wrappers_and_prefixes_are_understood(tmp_path):
  model, state = _tiny(), _state()
  expected, wrong = _nested(state), []
  cases = [('torch', n, w(state)) for n, w in TORCH_WRAPPINGS.items()]
  for form in ('msgpack', 'orbax'):
    cases += [(form, n, w(expected)) for n, w in FLAX_WRAPPINGS.items()]
  flat = {k: v for k, v in _prefixed('module.')(state).items()}
  cases += [('safetensors', 'flat', flat), ('npz', 'flat', flat)]
  for form, name, tree in cases:
    path = _put(tmp_path / f'{form}_{name}', form, tree)
    try:
      _same(checkpoints.read(model, path), expected)
    except (ValueError, AssertionError) as error:
      wrong.append(f'{form} {name}: {error}')
  assert not wrong


def test_an_orbax_folder_may_be_a_step_of_a_run(tmp_path):
  model, variables = _tiny(), _variables(_tiny())
  for step in ('2', '10'):
    _put(tmp_path / 'run' / step / 'default', 'orbax', variables)
  _same(checkpoints.read(model, tmp_path / 'run' / '10'), variables)
  with pytest.raises(ValueError, match='it holds 10, 2; name one of them'):
    checkpoints.read(model, tmp_path / 'run')


def test_which_of_several_sets_of_weights_is_read_is_said(tmp_path):
  tree = {'ema': _state(seed=1), 'state_dict': _state(seed=0)}
  path = _put(tmp_path / 'a', 'torch', tree)
  message = 'also under ema; those under state_dict are read'
  with pytest.warns(UserWarning, match=message):
    found = checkpoints.read(_tiny(), path)
  _same(found, _nested(_state(seed=0)))


def _edited(**changes):
  state = dict(_state())
  for name, value in changes.items():
    name = name.replace('__', '.')
    if value is None:
      del state[name]
    else:
      state[name] = value
  return state


REFUSED = [
  (_edited(bn2__bias=None), r"missing \['bn2.bias'\] \(1 in all\)"),
  (_edited(more=np.zeros(3)), r"unexpected \['more'\] \(1 in all\)"),
  (
    {'state_dict': _edited(more=np.zeros(3))},
    r"torch, names of PyTorch, under 'state_dict'.*\['state_dict.more'\]",
  ),
  (
    _edited(bn1__bias=np.zeros(9, np.float32)),
    r'1 tensor of another shape: bn1.bias \(9,\), not \(6,\)',
  ),
  (
    _edited(conv1__weight=np.zeros((6, 3, 27), np.float32)),
    r'conv1.weight \(6, 3, 27\), not \(6, 3, 3, 3\)',
  ),
  (_edited(fc__bias=np.zeros(5, np.int8)), 'fc.bias is of dtype int8'),
  (_edited(fc__bias=np.zeros(5, np.complex64)), 'fc.bias is of dtype complex'),
  (_edited(fc__bias=np.zeros(5, bool)), 'fc.bias is of dtype bool'),
  (
    _state(_tiny(classes=7)),
    'has 7 classes, the model has 5; build .*classes=7',
  ),
  (
    {f'features.{i}.weight': np.zeros(3) for i in range(3)},
    "3 tensors named like 'features.0.weight' .*accepted are names of PyTorch "
    r"\('conv1.weight', ...\), paths of Flax variables",
  ),
  ({'0': np.zeros(3), '1': np.zeros(3)}, "named like '0' and '1'"),
  (
    {**_prefixed('module.')(_state()), **_state()},
    'holds two tensors for one weight',
  ),
  ({'epoch': {}, 'model': {}}, r"it holds entries \['epoch', 'model'\]"),
]


def test_weights_of_another_model_are_refused_in_one_line(tmp_path):
  path = tmp_path / 'a.pth'

  def read(tree):
    _put(path, 'torch', tree)
    checkpoints.read(_tiny(), path)

  for tree, message in REFUSED:
    with pytest.raises(ValueError, match=message) as error:
      read(tree)
    assert str(path) in str(error.value) and '\n' not in str(error.value)


def test_a_custom_network_takes_no_names_of_pytorch(tmp_path):
  path = _put(tmp_path / 'a.pth', 'torch', _state())
  with pytest.raises(ValueError, match="Flax variables .'params.gain'"):
    checkpoints.read(MODELS['custom'], path)


class _Names(pickle._Pickler):  # the Python pickler, to write any name
  def save_name(self, obj):
    module, _, name = obj.path.rpartition('.')
    self.write(f'c{module}\n{name}\n'.encode())


class _Global:
  """Pickles as a function of a module that need not exist."""

  def __init__(self, path):
    self.path = path

  def __call__(self, *args):
    raise AssertionError('never called')


_Names.dispatch = {**pickle._Pickler.dispatch, _Global: _Names.save_name}


class _Call:
  """Pickles as the call of a function by name."""

  def __init__(self, path, *args, state=None):
    self.value = (_Global(path), args, state)

  def __reduce_ex__(self, protocol):
    return self.value


class _Tensor(_Call):
  """A tensor of four numbers whose storage has another class."""

  def __init__(self, build, storage, *rest):
    super().__init__(f'torch._utils.{build}', _Storage(storage), *rest)


class _Storage:
  def __init__(self, name):
    self.pid = ('storage', _Global(f'torch.{name}'), '0', 'cpu', 4)


def _torch_file(path, value, data=b'\0' * 64):
  """Write a file of torch.save whose pickle holds any value."""
  buffer = io.BytesIO()
  pickler = _Names(buffer, 2)
  pickler.persistent_id = lambda obj: getattr(obj, 'pid', None)
  pickler.dump(value)
  with zipfile.ZipFile(path, 'w') as archive:
    archive.writestr('a/data.pkl', buffer.getvalue())
    archive.writestr('a/data/0', data)
  return path


VIEW = (0, (4,), (1,), False, collections.OrderedDict())


@pytest.mark.parametrize(
  ('tensor', 'reason'),
  [
    (_Call('torch._utils._rebuild_sparse_tensor', 0, ()), 'sparse'),
    (_Tensor('_rebuild_qtensor', 'QInt8Storage', *VIEW), 'quantised'),
    (_Tensor('_rebuild_tensor_v2', 'QInt8Storage', *VIEW), 'not supported'),
    (_Tensor('_rebuild_tensor_v2', 'FloatStorage', 0, (9,), (0,)), 'expanded'),
  ],
)
def test_tensors_that_are_not_dense_are_named(tensor, reason, tmp_path):
  tree = pytorch.read_zip(_torch_file(tmp_path / 'a', {'fc.bias': tensor}))
  assert reason in tree['fc.bias'].reason
  path = _torch_file(tmp_path / 'b', {'fc.bias': tensor})
  with pytest.raises(ValueError, match='missing'):
    checkpoints.read(_tiny(), path)


@pytest.mark.parametrize(
  'rest',
  [
    (3, (4,), (1,)),  # reaches beyond the storage
    (-1, (2,), (1,)),
    (0, (2,), (-1,)),
    (0, (2, 2), (1,)),
    (0, 4, 1),
  ],
)
def test_tensors_with_a_wrong_storage_are_refused(rest, tmp_path):
  tensor = _Tensor('_rebuild_tensor_v2', 'FloatStorage', *rest)
  path = _torch_file(tmp_path / 'a', {'fc.bias': tensor})
  with pytest.raises(ValueError, match='cannot be read .torch.*tensor'):
    checkpoints.read(_tiny(), path)


def test_a_storage_that_is_cut_is_refused(tmp_path):
  tensor = _Tensor('_rebuild_tensor_v2', 'FloatStorage', *VIEW)
  path = _torch_file(tmp_path / 'a', {'x': tensor}, data=b'\0' * 15)
  tree = pytorch.read_zip(path)
  with pytest.raises(ValueError, match='a/data/0 is missing or cut'):
    tree['x'].load()


def test_pickled_code_is_never_run(tmp_path):
  """Calls of every kind become objects that do nothing."""
  target = tmp_path / 'touched'
  calls = [
    _Call('os.system', f'touch {target}'),
    _Call('builtins.eval', f'open({str(target)!r}, "w")'),
    _Call('builtins.getattr', _Global('os.path'), 'x'),
    _Call('torch._utils._rebuild_from_type_v2', _Global('os.system'), 0, (), 0),
    _Call('argparse.Namespace', state={'lr': 0.1}),
    _Call('collections.OrderedDict', [('a', _Call('os.system', 'false'))]),
    _Call('jaxmu.models.pytorch._tensor', 1, 2, 3, 4),
  ]
  tree = {'state_dict': _Call('collections.OrderedDict'), 'args': calls}
  found = pytorch.read_zip(_torch_file(tmp_path / 'a', tree))
  assert not target.exists()
  kinds = [isinstance(x, pytorch._Inert | dict) for x in found['args']]
  assert all(kinds)
  (tmp_path / 'b').write_bytes(pickle.dumps({'a': print}, 2))
  with pytest.raises(ValueError, match='a pickle, which is not run'):
    checkpoints.read(_tiny(), tmp_path / 'b')


def test_trees_without_end_are_refused(tmp_path):
  endless = []
  endless.append(endless)
  wide = [0]
  for _ in range(60):
    wide = [wide, wide]
  for tree in (endless, wide):
    path = _torch_file(tmp_path / 'a', {'x': tree})
    with pytest.raises(ValueError, match='contain each other, or are too many'):
      checkpoints.read(_tiny(), path)


def _safe(header, size=4):
  text = json.dumps(header).encode()
  return struct.pack('<Q', len(text)) + text + b'\0' * size


def _npz(**arrays):
  buffer = io.BytesIO()
  np.savez(buffer, **arrays)
  return buffer.getvalue()


def _zip(*names):
  buffer = io.BytesIO()
  with zipfile.ZipFile(buffer, 'w') as archive:
    for name in names:
      archive.writestr(name, b'')
  return buffer.getvalue()


ENTRY = {'dtype': 'F32', 'shape': [1], 'data_offsets': [0, 4]}
NO_CHECKPOINTS = [
  (b'', 'is empty'),
  (b'not one', 'not a checkpoint of a known kind'),
  (b'\x89HDF\r\n', 'an HDF5 file'),
  (b'\x1f\x8b\x08', 'compressed .gzip.; unpack it first'),
  (b'x' * 257 + b'ustar', 'a tar archive'),
  (b'PK\x03\x04' + b'x' * 40, 'a damaged zip archive'),
  (_zip('a.txt'), 'a zip archive of a.txt'),
  (_zip('a/data.pkl', 'a/constants.pkl'), 'a TorchScript program'),
  (_zip('a/data.pkl'), r'cannot be read \(torch\)'),
  (_npz(x=np.zeros(3))[:-30], 'damaged zip archive'),
  (_npz(x=np.array([print])), 'x.*pickled objects|none of which'),
  (
    _safe({'x': {**ENTRY, 'data_offsets': [0, 400]}}),
    'bytes, its header describes',
  ),
  (_safe({'x': {**ENTRY, 'shape': [2]}}), 'x has 4 bytes for shape'),
  (_safe({'x': {**ENTRY, 'shape': [-1]}}), 'beyond the file'),
  (_safe({'x': ENTRY}, 8), 'it has .* bytes, its header describes'),
  (_safe({'x': ENTRY, 'y': ENTRY}), 'leave gaps or overlap'),
  (_safe({'x': 3}), r'cannot be read \(safetensors\)'),
  (_safe({'x': {**ENTRY, 'dtype': 'F8_E4M3'}}), "named like 'x'"),
  (b'\x81\xa1', r'cannot be read \(msgpack\)'),
  (flax.serialization.msgpack_serialize({'a': 3}), r"holds entries \['a'\]"),
]


def test_files_that_are_no_checkpoints_are_refused_in_one_line(tmp_path):
  path = tmp_path / 'a.pth'
  for content, message in NO_CHECKPOINTS:
    path.write_bytes(content)
    with pytest.raises(ValueError, match=message) as error:
      checkpoints.read(_tiny(), path)
    assert str(path) in str(error.value) and '\n' not in str(error.value)
  with pytest.raises(FileNotFoundError, match='no file'):
    checkpoints.read(_tiny(), tmp_path / 'none')
  with pytest.raises(ValueError, match='not a folder of Orbax'):
    checkpoints.read(_tiny(), tmp_path)
  with pytest.raises(ValueError, match="ends in '.xyz'; known endings are"):
    checkpoints.write(_tiny(), _variables(_tiny()), tmp_path / 'a.xyz')


@pytest.mark.parametrize('form', ['safetensors', 'pth', 'msgpack', 'npz'])
def test_damaged_files_are_read_alike_or_refused_in_one_line(form, tmp_path):
  model, path = _tiny(), tmp_path / 'a'
  checkpoints.write(model, _variables(model), tmp_path / f'a.{form}')
  whole = (tmp_path / f'a.{form}').read_bytes()
  rng = np.random.default_rng(0)
  wrong = []
  for trial in range(60):
    content = bytearray(whole)
    place = int(rng.integers(len(content) if trial % 3 else 1500))
    if trial % 2:
      content[place] ^= 1 << int(rng.integers(8))
    else:
      del content[place:]
    path.write_bytes(content)
    try:
      with warnings.catch_warnings():
        warnings.simplefilter('ignore')
        checkpoints.read(model, path)
      if not trial % 2:
        wrong.append(f'cut at {place}: accepted')
    except ValueError as error:
      if '\n' in str(error):
        wrong.append(str(error))
  assert not wrong


def test_variables_of_another_model_are_not_written(tmp_path):
  path = tmp_path / 'a.pth'
  with pytest.raises(ValueError, match='variables of another model'):
    checkpoints.write(MODELS['resnet18'], _variables(_tiny()), path)
  with pytest.raises(ValueError, match=r'shape \(7,\), not \(5,\)'):
    checkpoints.write(_tiny(), _variables(_tiny(classes=7)), path)
  assert not path.exists()


@pytest.mark.parametrize('form', ['torch', 'safetensors', 'msgpack', 'orbax'])
def test_a_file_is_written_in_the_form_that_it_came_in(form, tmp_path):
  """Names, order, wrapper, buffers and precision stay; optimisers go."""
  model = _tiny()
  if form in ('torch', 'safetensors'):
    tree = {
      f'module.{name}': value.astype(jnp.bfloat16)
      for name, value in _state().items()
    }
    tree['module.bn1.num_batches_tracked'] = np.array(7)
    if form == 'torch':
      tree = {
        'epoch': np.array(3),
        'model': tree,
        'optimizer': {'state': {'0': np.ones(3)}},
      }
  else:
    half = jax.tree.map(lambda x: x.astype(np.float16), _nested(_state()))
    tree = {'state': {**half, 'opt_state': half, 'step': np.array(3)}}
  old = _put(tmp_path / 'old', form, tree, {'format': 'pt', 'by': 'me'})
  with warnings.catch_warnings():
    warnings.simplefilter('ignore')
    variables = checkpoints.read(model, old)
    checkpoints.write(model, variables, tmp_path / 'new', like=old)
    _same(checkpoints.read(model, tmp_path / 'new'), variables)
  before, after = (checkpoint_files.read(tmp_path / n) for n in ('old', 'new'))
  assert after.form == form and after.note == before.note
  kept = {k: v for k, v in checkpoints._arrays(before.tree) if _is_kept(k)}
  found = dict(checkpoints._arrays(after.tree))
  assert list(found) == list(kept)
  for key, array in found.items():
    assert array.dtype == kept[key].dtype
    np.testing.assert_array_equal(array.load(), kept[key].load())


def _is_kept(key):
  return not {'epoch', 'optimizer', 'opt_state', 'step'} & set(key)


def test_averages_of_the_original_are_not_kept(tmp_path):
  tree = {'state_dict': _state(), 'ema': _state(seed=1)}
  old = _put(tmp_path / 'old.pth', 'torch', tree)
  checkpoints.write(_tiny(), _variables(_tiny(), 2), tmp_path / 'new', like=old)
  assert list(checkpoint_files.read(tmp_path / 'new').tree) == ['state_dict']


def test_torch_is_not_needed(tmp_path, monkeypatch):
  for name in ('torch', 'safetensors', 'safetensors.numpy'):
    monkeypatch.setitem(sys.modules, name, None)
  for ending in ('pth', 'safetensors'):
    checkpoints.write(_tiny(), _variables(_tiny()), tmp_path / f'a.{ending}')
    checkpoints.read(_tiny(), tmp_path / f'a.{ending}')


@pytest.mark.parametrize('legacy', [False, True], ids=['zip', 'before 1.6'])
def test_files_of_torch_are_read(legacy, tmp_path):
  torch = pytest.importorskip('torch', reason=TORCH)
  model, variables = _tiny(), _variables(_tiny())
  state = {name: torch.tensor(value) for name, value in _state().items()}
  weight = torch.nn.Parameter(state['fc.weight'].clone())
  optimizer = torch.optim.Adam([weight])
  weight.sum().backward()
  optimizer.step()
  for wrapped in (
    state,
    {'state_dict': state, 'epoch': 3, 'optimizer': optimizer.state_dict()},
    {'model': {f'module.{k}': v for k, v in state.items()}, 'args': print},
    # A view with steps of a shared storage, as a transposed weight is.
    {**state, 'fc.weight': state['fc.weight'].T.contiguous().T},
    collections.OrderedDict(state),
    {k: torch.nn.Parameter(v) for k, v in state.items()},
  ):
    torch.save(
      wrapped,
      tmp_path / 'a.pth',
      _use_new_zipfile_serialization=not legacy,
    )
    _same(checkpoints.read(model, tmp_path / 'a.pth'), variables)
  half = {name: value.bfloat16() for name, value in state.items()}
  torch.save(half, tmp_path / 'a.pth')
  with pytest.warns(UserWarning, match='bfloat16'):
    found = checkpoints.read(model, tmp_path / 'a.pth')
  expected = {n: v.float().numpy() for n, v in half.items()}
  _same(found, pytorch_names.from_torch(model, expected))


def test_files_of_torch_that_cannot_be_read_are_refused(tmp_path):
  torch = pytest.importorskip('torch', reason=TORCH)
  path = tmp_path / 'a.pth'
  state = {name: torch.tensor(value) for name, value in _state().items()}
  for value, message in (
    ({'epoch': 3, 'model': [1.0]}, "holds entries .'epoch', 'model'"),
    (torch.nn.Linear(2, 2), 'no state dict'),  # a pickled class is never run
    ({3: torch.zeros(2)}, "named like '3'"),
    ({**state, 'fc.bias': state['fc.bias'].to_sparse()}, 'is sparse'),
    (
      {
        **state,
        'fc.bias': torch.quantize_per_tensor(
          state['fc.bias'], 0.1, 0, torch.qint8
        ),
      },
      'is quantised',
    ),
    (
      {**state, 'fc.bias': state['fc.bias'] * 1j},
      'is of dtype complex64',
    ),
  ):
    torch.save(value, path)
    with pytest.raises(ValueError, match=message):
      checkpoints.read(_tiny(), path)


def test_logits_are_those_of_pytorch(tmp_path):
  torch = pytest.importorskip('torch', reason=TORCH)
  twin = _twin(torch, width=8, classes=10)
  images = np.random.default_rng(0).standard_normal((4, 3, 32, 32), np.float32)
  with torch.no_grad():
    twin(torch.tensor(images))  # so that running statistics are not trivial
    expected = twin.eval()(torch.tensor(images)).numpy()
  model = models.build('resnet18', num_classes=10, options={'width': 8})
  torch.save({'state_dict': twin.state_dict()}, tmp_path / 'a.pth')
  variables = checkpoints.read(model, tmp_path / 'a.pth')
  ours, _ = jax.jit(lambda v, x: models.apply(model, v, x, train=False))(
    variables, images.transpose(0, 2, 3, 1)
  )
  np.testing.assert_allclose(ours, expected, atol=1e-5)
  assert np.std(expected) > 1e-2

  for path, like in (('b.pth', None), ('c.pth', tmp_path / 'a.pth')):
    checkpoints.write(model, variables, tmp_path / path, like=like)
    back = _twin(torch, width=8, classes=10)
    for mmap in (False, True):
      state = torch.load(tmp_path / path, weights_only=True, mmap=mmap)
      back.load_state_dict(state if like is None else state['state_dict'])
    with torch.no_grad():
      again = back.eval()(torch.tensor(images)).numpy()
    np.testing.assert_array_equal(again, expected)


def _twin(torch, width, classes):
  """Build torchvision's ResNet-18 with its names."""
  nn = torch.nn

  def convolution(inputs, outputs, size, stride):
    return nn.Conv2d(inputs, outputs, size, stride, size // 2, bias=False)

  class Block(nn.Module):
    def __init__(self, inputs, outputs, stride):
      super().__init__()
      self.conv1 = convolution(inputs, outputs, 3, stride)
      self.bn1 = nn.BatchNorm2d(outputs)
      self.conv2 = convolution(outputs, outputs, 3, 1)
      self.bn2 = nn.BatchNorm2d(outputs)
      self.downsample = nn.Sequential()
      if stride > 1:
        self.downsample = nn.Sequential(
          convolution(inputs, outputs, 1, stride), nn.BatchNorm2d(outputs)
        )

    def forward(self, x):
      y = torch.relu(self.bn1(self.conv1(x)))
      return torch.relu(self.bn2(self.conv2(y)) + self.downsample(x))

  class ResNet(nn.Module):
    def __init__(self):
      super().__init__()
      self.conv1 = convolution(3, width, 7, 2)
      self.bn1 = nn.BatchNorm2d(width)
      inputs = width
      for stage in range(4):
        outputs = width * 2**stage
        first = Block(inputs, outputs, 2 if stage else 1)
        rest = Block(outputs, outputs, 1)
        setattr(self, f'layer{stage + 1}', nn.Sequential(first, rest))
        inputs = outputs
      self.fc = nn.Linear(inputs, classes)

    def forward(self, x):
      x = torch.relu(self.bn1(self.conv1(x)))
      x = nn.functional.max_pool2d(x, 3, 2, 1)
      for stage in range(4):
        x = getattr(self, f'layer{stage + 1}')(x)
      return self.fc(x.mean((2, 3)))

  torch.manual_seed(0)
  return ResNet()
