"""Checkpoints of PyTorch and safetensors files are read as they are meant."""

import sys

import jax
import numpy as np
import pytest

from jaxmu import models
from jaxmu.models import pytorch, pytorch_names

SAFETENSORS = 'safetensors is not installed: pip install safetensors'
TORCH = 'torch is not installed: pip install torch'


def _tiny(classes=5, **options):
  return models.build('tiny', num_classes=classes, options=options)


def _variables(model, seed=0):
  """Random variables, of full size without a compilation."""
  shapes = jax.eval_shape(
    lambda key: models.init(model, key, (32, 32, 3)), jax.random.key(0)
  )
  rng = np.random.default_rng(seed)
  return jax.tree.map(
    lambda x: 0.1 + 0.1 * rng.random(x.shape, np.float32), shapes
  )


def _same(a, b):
  jax.tree.map(np.testing.assert_array_equal, a, b)


@pytest.fixture
def write(tmp_path):
  """Write arrays as a safetensors file and return its path."""
  numpy = pytest.importorskip('safetensors.numpy', reason=SAFETENSORS)

  def one(state, name='a.safetensors'):
    state = {k: np.ascontiguousarray(v) for k, v in state.items()}
    numpy.save_file(state, tmp_path / name)
    return tmp_path / name

  return one


@pytest.mark.parametrize('name', ['resnet18', 'tiny', 'vit11m'])
def test_what_is_saved_is_loaded(name, tmp_path):
  pytest.importorskip('safetensors', reason=SAFETENSORS)
  model = models.build(name, num_classes=10)
  variables = _variables(model)
  pytorch.save(model, variables, tmp_path / 'a.safetensors')
  _same(pytorch.load(model, tmp_path / 'a.safetensors'), variables)


def test_a_file_in_torch_layout_means_what_it_says(write):
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
  variables = pytorch.load(model, write(state))
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


def test_half_precision_is_widened(write):
  model = _tiny()
  state = pytorch_names.to_torch(model, _variables(model))
  path = write(
    {name: value.astype(np.float16) for name, value in state.items()}
  )
  found = pytorch.load(model, path)
  assert {x.dtype.name for x in jax.tree.leaves(found)} == {'float32'}


def test_a_population_is_its_files_in_order(tmp_path):
  pytest.importorskip('safetensors', reason=SAFETENSORS)
  model = _tiny()
  members = [_variables(model, seed) for seed in range(3)]
  stacked = jax.tree.map(lambda *x: np.stack(x), *members)
  paths = [tmp_path / f'{i}.safetensors' for i in range(3)]
  pytorch.save_population(model, stacked, paths)
  _same(pytorch.load(model, paths[1]), members[1])
  _same(pytorch.load_population(model, paths), stacked)
  with pytest.raises(ValueError, match='3 members and 2 files'):
    pytorch.save_population(model, stacked, paths[:2])
  with pytest.raises(ValueError, match='no files'):
    pytorch.load_population(model, [])


@pytest.mark.parametrize('prefix', ['module.', '_orig_mod.module.', 'model.'])
def test_prefixes_of_wrappers_are_taken_off(write, prefix):
  model = _tiny()
  variables = _variables(model)
  state = pytorch_names.to_torch(model, variables)
  path = write({prefix + name: value for name, value in state.items()})
  _same(pytorch.load(model, path), variables)


def _edited(change):
  model = _tiny()
  state = pytorch_names.to_torch(model, _variables(model))
  change(state)
  return state


@pytest.mark.parametrize(
  'change, message',
  [
    (lambda s: s.pop('bn2.bias'), r"missing \['bn2.bias'\]"),
    (lambda s: s.update(more=s['fc.bias']), r"unexpected \['more'\]"),
    (
      lambda s: s.update({'bn1.bias': np.zeros(9)}),
      r'1 tensors of another shape: bn1.bias \(9,\), not \(6,\)',
    ),
    (
      lambda s: s.update({'conv1.weight': np.zeros((6, 3, 27))}),
      'conv1.weight has 3 axes, not 4',
    ),
  ],
)
def test_files_of_another_network_are_refused(write, change, message):
  path = write(_edited(change))
  with pytest.raises(ValueError, match=message) as error:
    pytorch.load(_tiny(), path)
  assert str(path) in str(error.value)


def test_another_number_of_classes_is_said_plainly(write):
  model = _tiny(classes=7)
  path = write(pytorch_names.to_torch(model, _variables(model)))
  with pytest.raises(ValueError, match='has 7 classes, the model 5'):
    pytorch.load(_tiny(), path)


def test_files_that_are_none_are_refused(tmp_path):
  with pytest.raises(FileNotFoundError, match='no file'):
    pytorch.read(tmp_path / 'none.safetensors')
  with pytest.raises(ValueError, match='known endings'):
    pytorch.read('weights.npz')
  pytest.importorskip('safetensors', reason=SAFETENSORS)
  (tmp_path / 'broken.safetensors').write_bytes(b'not one')
  with pytest.raises(ValueError, match='cannot be read as safetensors'):
    pytorch.read(tmp_path / 'broken.safetensors')


@pytest.mark.parametrize(
  'package, ending', [('torch', 'pth'), ('safetensors', 'safetensors')]
)
def test_a_package_that_is_not_installed_is_named(
  package, ending, tmp_path, monkeypatch
):
  for name in (package, f'{package}.numpy'):
    monkeypatch.setitem(sys.modules, name, None)
  path = tmp_path / f'a.{ending}'
  path.write_bytes(b'')
  with pytest.raises(ImportError, match=f'pip install {package}'):
    pytorch.read(path)
  model = _tiny()
  with pytest.raises(ImportError, match=f'pip install {package}'):
    pytorch.save(model, _variables(model), path)


@pytest.mark.parametrize(
  'wrapped',
  [
    lambda state: state,
    lambda state: {'state_dict': state, 'epoch': 3},
    lambda state: {'model': {f'module.{k}': v for k, v in state.items()}},
  ],
  ids=['bare', 'under state_dict', 'parallel'],
)
def test_files_of_torch_are_unwrapped(wrapped, tmp_path):
  torch = pytest.importorskip('torch', reason=TORCH)
  model = _tiny()
  variables = _variables(model)
  state = pytorch_names.to_torch(model, variables)
  state = {name: torch.tensor(value) for name, value in state.items()}
  torch.save(wrapped(state), tmp_path / 'a.pth')
  _same(pytorch.load(model, tmp_path / 'a.pth'), variables)


def test_files_of_torch_without_weights_are_refused(tmp_path):
  torch = pytest.importorskip('torch', reason=TORCH)
  path = tmp_path / 'a.pth'
  torch.save({'epoch': 3, 'model': [1.0]}, path)
  with pytest.raises(ValueError, match="holds entries .'epoch', 'model'"):
    pytorch.read(path)
  torch.save(torch.nn.Linear(2, 2), path)  # a pickled class is never run
  with pytest.raises(ValueError, match='torch.save.model.state_dict'):
    pytorch.read(path)


def test_logits_are_those_of_pytorch(tmp_path):
  torch = pytest.importorskip('torch', reason=TORCH)
  twin = _twin(torch, width=8, classes=10)
  images = np.random.default_rng(0).standard_normal((4, 3, 32, 32), np.float32)
  with torch.no_grad():
    twin(torch.tensor(images))  # so that running statistics are not trivial
    expected = twin.eval()(torch.tensor(images)).numpy()
  model = models.build('resnet18', num_classes=10, options={'width': 8})
  torch.save({'state_dict': twin.state_dict()}, tmp_path / 'a.pth')
  variables = pytorch.load(model, tmp_path / 'a.pth')
  ours, _ = jax.jit(lambda v, x: models.apply(model, v, x, train=False))(
    variables, images.transpose(0, 2, 3, 1)
  )
  np.testing.assert_allclose(ours, expected, atol=1e-5)
  assert np.std(expected) > 1e-2

  pytorch.save(model, variables, tmp_path / 'b.pth')
  back = _twin(torch, width=8, classes=10)
  back.load_state_dict(torch.load(tmp_path / 'b.pth'))
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
