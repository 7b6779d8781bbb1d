"""Custom networks: their inferred description, and methods that run on them."""

import re

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from jaxmu import hparams as hp
from jaxmu import method as method_lib
from jaxmu import methods, models
from jaxmu.draws import Draws
from jaxmu.models import custom, pytorch_names
from jaxmu.testing import tiny_problem
from jaxmu.types import Problem

SHAPE = (8, 8, 3)
CLASSES = tiny_problem.CLASSES


class Net(nn.Module):
  """A network with biases, dropout and a top-level parameter."""

  @nn.compact
  def __call__(self, x, *, train):
    x = x * self.param('gain', nn.initializers.ones, (1, 1, 1, 3))
    x = nn.Conv(4, (3, 3), strides=2, name='z_first')(x)
    x = nn.relu(nn.BatchNorm(use_running_average=not train)(x))
    x = nn.Conv(4, (3, 3), feature_group_count=4, name='a_second')(x)
    x = nn.LayerNorm(name='m_norm')(x)
    x = nn.Dense(6, use_bias=False, name='k_third')(x.mean((1, 2)))
    x = nn.Dropout(0.5, deterministic=not train)(nn.relu(x))
    return nn.Dense(CLASSES, name='b_head')(x)


class Mlp(nn.Module):
  @nn.compact
  def __call__(self, x):
    x = nn.relu(nn.Dense(8)(x.reshape((x.shape[0], -1))))
    x = nn.relu(nn.Dense(8)(x))
    return nn.Dense(CLASSES)(x)


class Field(nn.Module):
  """A network whose mode is a field, with the opposite meaning of `train`."""

  deterministic: bool = True

  @nn.compact
  def __call__(self, x):
    x = nn.BatchNorm(self.deterministic)(nn.Conv(4, (3, 3))(x))
    return nn.Dense(CLASSES)(x.mean((1, 2)))


def _wrap(module, **options):
  return custom.wrap(module, num_classes=CLASSES, image_shape=SHAPE, **options)


def _images(seed=0, size=4):
  rng = np.random.default_rng(seed)
  return jnp.asarray(rng.standard_normal((size, *SHAPE)), jnp.float32)


def test_layers_are_in_the_order_of_the_forward_pass():
  model = _wrap(Net())
  assert [(layer.path, layer.kind) for layer in model.layers] == [
    ('', 'other'),
    ('z_first', 'conv'),
    ('BatchNorm_0', 'batch_norm'),
    ('a_second', 'depthwise'),
    ('m_norm', 'layer_norm'),
    ('k_third', 'linear'),
    ('b_head', 'linear'),
  ]
  assert model.blocks == models.Blocks(
    stem=('z_first', 'BatchNorm_0'),
    body=(('a_second', 'm_norm'), ('k_third',)),
    neck=(),
    classifier=('b_head',),
    stem_conv=('z_first',),
  )


def test_equal_modules_give_equal_models():
  assert _wrap(Net()) == _wrap(Net()) and hash(_wrap(Net())) is not None


def test_logits_are_those_of_the_module():
  model, images = _wrap(Net()), _images()
  variables = models.init(model, jax.random.key(0), SHAPE)
  logits, stats = models.apply(model, variables, images, train=False)
  expected = Net().apply(variables, images, train=False)
  np.testing.assert_array_equal(logits, expected)
  assert stats is variables['batch_stats']


def test_dropout_follows_the_draws():
  model, images = _wrap(Net()), _images()
  variables = models.init(model, jax.random.key(0), SHAPE)
  assert model.num_drop_paths == 2
  rng = np.random.default_rng(0)
  draws = [jnp.asarray(rng.random((2, 4)), jnp.float32) for _ in range(2)]

  def run(noise):
    return models.apply(model, variables, images, train=True, drop_path=noise)

  (first, stats), (again, _), (other, _) = map(run, (draws[0], *draws))
  np.testing.assert_array_equal(first, again)
  assert not np.array_equal(first, other)
  before = variables['batch_stats']['BatchNorm_0']['mean']
  assert not np.array_equal(stats['BatchNorm_0']['mean'], before)


@pytest.mark.parametrize('module', [Net(), Mlp(), Field()])
def test_every_array_is_listed_once(module):
  model = _wrap(module)
  variables = models.init(model, jax.random.key(0), SHAPE)
  state = pytorch_names.to_torch(model, variables)
  assert len(state) == len(jax.tree.leaves(variables))
  back = pytorch_names.from_torch(model, state)
  jax.tree.map(np.testing.assert_array_equal, back, variables)
  # RNI tells BatchNorm by its name.
  norms = {leaf.torch for leaf in model.leaves if leaf.kind == 'batch_norm'}
  assert norms == {name for name in state if 'bn' in name}


def test_a_field_can_switch_the_mode():
  model, images = _wrap(Field()), _images()
  assert model.network.mode == 'deterministic'
  variables = models.init(model, jax.random.key(0), SHAPE)
  trained, stats = models.apply(model, variables, images, train=True)
  plain, _ = models.apply(model, variables, images, train=False)
  expected, _ = Field(False).apply(variables, images, mutable=['batch_stats'])
  np.testing.assert_array_equal(trained, expected)
  assert not np.array_equal(trained, plain)
  assert jax.tree.structure(stats) == jax.tree.structure(
    variables['batch_stats']
  )


def test_blocks_may_be_given():
  blocks = models.Blocks(
    stem=('Dense_0',),
    body=(('Dense_1',),),
    neck=(),
    classifier=('Dense_2',),
    stem_conv=(),
  )
  assert _wrap(Mlp(), blocks=blocks) == _wrap(Mlp())
  with pytest.raises(ValueError, match="blocks name 'conv1'.*Dense_0, Dense_1"):
    _wrap(Mlp(), blocks=blocks._replace(stem=('conv1',)))
  with pytest.raises(ValueError, match="'Dense_1' is not a linear layer of 4"):
    _wrap(Mlp(), blocks=blocks._replace(classifier=('Dense_1',)))


class NnxNet(nnx.Module):
  """Defined in another order than it is used in."""

  def __init__(self, num_classes: int, width: int = 4, *, rngs: nnx.Rngs):
    self.a_head = nnx.Linear(width, num_classes, rngs=rngs)
    self.blocks = nnx.List(
      nnx.Linear(width, width, rngs=rngs) for _ in range(2)
    )
    self.dropout = nnx.Dropout(0.5, rngs=rngs)
    self.norm = nnx.BatchNorm(width, rngs=rngs)
    self.z_first = nnx.Conv(3, width, (3, 3), rngs=rngs)

  def __call__(self, x):
    x = nnx.relu(self.norm(self.z_first(x))).mean((1, 2))
    for block in self.blocks:
      x = block(x)
    return self.a_head(self.dropout(x))


def test_nnx_layers_are_in_the_order_of_the_forward_pass():
  model = _wrap(NnxNet, options={'width': 5})
  assert [(layer.path, layer.kind) for layer in model.layers] == [
    ('z_first', 'conv'),
    ('norm', 'batch_norm'),
    ('blocks/0', 'linear'),
    ('blocks/1', 'linear'),
    ('a_head', 'linear'),
  ]
  assert model.blocks == models.Blocks(
    stem=('z_first', 'norm'),
    body=(('blocks/0',), ('blocks/1',)),
    neck=(),
    classifier=('a_head',),
    stem_conv=('z_first',),
  )
  assert model == _wrap(NnxNet, options={'width': 5})
  assert model != _wrap(NnxNet, options={'width': 6})


def test_nnx_logits_and_statistics_are_those_of_the_module():
  model, images = _wrap(NnxNet), _images()
  variables = models.init(model, jax.random.key(0), SHAPE)
  plain = NnxNet(CLASSES, rngs=nnx.Rngs(jax.random.key(0)))
  plain.eval()
  logits, stats = models.apply(model, variables, images, train=False)
  np.testing.assert_array_equal(logits, plain(images))
  assert stats is variables['batch_stats']
  plain.train()
  plain(images)
  _, stats = models.apply(
    model, variables, images, train=True, drop_path=jnp.full((2, 4), 0.3)
  )
  np.testing.assert_array_equal(stats['norm']['mean'], plain.norm.mean[...])
  np.testing.assert_array_equal(stats['norm']['var'], plain.norm.var[...])


def _pure_init(key):
  kernel = 0.1 * jax.random.normal(key, (3, 3, 3, 4))
  head = {'w': jnp.eye(4, CLASSES), 'b': jnp.zeros(CLASSES)}
  return {'z_first': {'w': kernel, 'b': jnp.zeros(4)}, 'a_head': head}


def _pure_apply(params, images):
  first, head = params['z_first'], params['a_head']
  x = jax.lax.conv_general_dilated(
    images,
    first['w'],
    (1, 1),
    'SAME',
    dimension_numbers=('NHWC', 'HWIO', 'NHWC'),
  )
  x = jax.nn.relu(x + first['b'].reshape(1, 1, 1, -1)).mean((1, 2))
  return x @ head['w'] + head['b'].reshape(1, -1)


PURE = models.PureModel(_pure_init, _pure_apply)


def test_pure_functions_are_read_by_their_tree_and_their_use():
  model, images = _wrap(PURE), _images()
  assert [(layer.path, layer.kind) for layer in model.layers] == [
    ('z_first', 'conv'),
    ('a_head', 'linear'),
  ]
  assert model.blocks.classifier == ('a_head',)
  variables = models.init(model, jax.random.key(0), SHAPE)
  assert set(variables['params']['a_head']) == {'kernel', 'bias'}
  logits, stats = models.apply(model, variables, images, train=True)
  expected = jax.jit(_pure_apply)(_pure_init(jax.random.key(0)), images)
  np.testing.assert_allclose(logits, expected, rtol=1e-6)
  assert stats == {}


def test_pure_functions_may_hold_pairs_and_lists():
  def init(key):
    params = _pure_init(key)
    return [tuple(layer.values()) for layer in params.values()]

  def apply(params, images):
    named = zip(('z_first', 'a_head'), params, strict=True)
    pairs = {n: dict(zip('wb', pair, strict=True)) for n, pair in named}
    return _pure_apply(pairs, images)

  model = _wrap((init, apply))
  variables = models.init(model, jax.random.key(0), SHAPE)
  assert model.blocks.classifier == ('1',)
  np.testing.assert_allclose(
    models.apply(model, variables, _images(), train=False)[0],
    apply(init(jax.random.key(0)), _images()),
    rtol=1e-6,
  )


def _with_statistics(returned):
  def init(key):
    stats = {'norm': {'mean': jnp.zeros(CLASSES)}}
    return {'params': _pure_init(key), 'batch_stats': stats}

  def apply(variables, images, train):
    logits = _pure_apply(variables['params'], images)
    mean = variables['batch_stats']['norm']['mean']
    if not train:
      return logits - mean.reshape(1, -1)
    return returned(logits, {'norm': {'mean': mean + 1}})

  return init, apply


def test_pure_functions_may_have_statistics():
  model = _wrap(_with_statistics(lambda logits, stats: (logits, stats)))
  variables = models.init(model, jax.random.key(0), SHAPE)
  _, stats = models.apply(model, variables, _images(), train=True)
  np.testing.assert_array_equal(stats['norm']['mean'], np.ones(CLASSES))
  with pytest.raises(ValueError, match=r'must return \(logits, batch_stats\)'):
    _wrap(_with_statistics(lambda logits, stats: logits))


def _factory(num_classes, scale):
  del scale
  return Field if num_classes else None


def test_functions_may_return_networks():
  model = _wrap(_factory, options={'scale': 2})
  assert model == _wrap(Field) == _wrap(Field())
  with pytest.raises(ValueError, match="no option 'depth'; it has: scale"):
    _wrap(_factory, options={'depth': 2})


class Stateful(nn.Module):
  what: str = ''

  @nn.compact
  def __call__(self, x):
    if self.what in ('always', 'never'):
      x = nn.BatchNorm(use_running_average=self.what == 'never')(x)
    if self.what == 'cache':
      self.variable('cache', 'count', jnp.zeros, ())
    if self.what == 'noise':
      x = nn.Dropout(0.5, deterministic=False)(x)
    if self.what == 'error':
      raise RuntimeError('first line\nsecond line')
    x = nn.Dense(CLASSES)(x.mean((1, 2)))
    return {'tuple': (x, x), 'dict': {'logits': x}}.get(self.what, x)


class Named(nn.Module):
  @nn.compact
  def __call__(self, x, train=False):
    x = nn.BatchNorm(not train, axis_name='batch')(x)
    return nn.Dense(CLASSES)(x.mean((1, 2)))


class Noisy(nn.Module):
  @nn.compact
  def __call__(self, x, train=False):
    if train:
      x = x + jax.random.normal(self.make_rng('noise'), x.shape)
    return nn.Dense(CLASSES)(x.mean((1, 2)))


class Pooled(nn.Module):
  @nn.compact
  def __call__(self, x):
    return nn.Conv(CLASSES, (3, 3))(x).mean((1, 2))


REFUSED = [
  (Stateful('never'), 'has BatchNorm but no train mode'),
  (Stateful('always'), 'updates statistics in evaluation mode'),
  (Stateful('cache'), "keeps 'cache'"),
  (Stateful('noise'), 'draws random numbers or updates'),
  (Stateful('tuple'), 'Stateful returns a tuple; return the logits alone'),
  (Stateful('dict'), 'Stateful returns a dict; return the logits alone'),
  (Stateful('error'), 'fails on images .*: RuntimeError: first line'),
  (Named(), 'Named names an axis .*drop axis_name'),
  (Noisy(), "a stream that is not 'dropout'"),
  (Pooled(), 'is not a linear layer of 4 outputs'),
  (nn.Sequential([nn.Dense(4)]), 'give tuples for lists'),
  (nn.Dense(4), r'to \(2, 8, 8, 4\), not to \(2, 4\)'),
  (nn.Dense, "'features'"),
  (len, 'len is not a network'),
  (dict, 'dict is not a network'),
  (PURE._replace(init=lambda key: jnp.zeros(3)), 'are a single array'),
  (nnx.Linear(3, 4, rngs=nnx.Rngs(0)), 'an instance of an NNX module'),
  (lambda rngs: 3, 'does not return an nnx.Module'),
]


def test_what_cannot_work_is_refused_in_one_line():
  wrong = []
  for network, message in REFUSED:
    try:
      _wrap(network)
      wrong.append(f'accepted: {message}')
    except ValueError as error:
      if not re.search(message, str(error)) or '\n' in str(error):
        wrong.append(f'{message}: {error}')
  assert not wrong


def _problem(model):
  shapes = jax.eval_shape(
    lambda key: models.init(model, key, SHAPE), jax.random.key(0)
  )
  rng = np.random.default_rng(0)
  original = jax.tree.map(
    lambda x: jnp.asarray(0.1 + 0.2 * rng.random(x.shape), jnp.float32), shapes
  )
  task = tiny_problem.task().replace(model=model)
  split = jax.tree.map(lambda x: jnp.asarray(x[0]), tiny_problem.splits(1))
  return Problem(task, split, original)


def _hparams(name):
  """Two epochs in batches of 8; teachers of the same architecture."""
  cls = methods.get(name).Hparams
  values = {}
  for key, value in hp.defaults(cls).items():
    if key.endswith('epochs'):
      values[key] = type(value)(2)
    elif 'batch_size' in key:
      values[key] = 8
    elif key == 'noisy_arch':
      values[key] = 'same'
  return hp.from_config(cls, {**values, **methods.get(name).card.small})


def _trace(name, problem):
  """Follow a method to its end by shapes alone."""
  method = methods.get(name)
  method_lib.check(method, problem)
  hparams = method.prepare(_hparams(name), problem)

  def run(problem, hparams):
    draws = Draws(jax.random.key(0))
    state = method.init(hparams, draws.at('init'), problem)
    state, _ = method.epoch(hparams, draws.at('epoch', 0), problem, state, 0)
    return method.finish(hparams, state)

  return jax.eval_shape(run, problem, hparams)


@pytest.mark.parametrize('network', [Net(), NnxNet], ids=['linen', 'nnx'])
def test_every_method_runs_on_a_custom_network(network):
  problem = _problem(_wrap(network))
  wrong = []
  for name in methods.METHODS:
    try:
      unlearned = _trace(name, problem)
    except Exception as error:
      wrong.append(f'{name}: {error}')
      continue
    if _shapes(unlearned) != _shapes(problem.start):
      wrong.append(f'{name}: other arrays')
  assert not wrong


def _shapes(variables):
  leaves = jax.tree.leaves(variables)
  return jax.tree.structure(variables), [leaf.shape for leaf in leaves]


def test_without_convolutions_or_batch_norm_some_methods_are_refused():
  problem = _problem(_wrap(Mlp()))
  refused = []
  for name in methods.METHODS:
    try:
      _trace(name, problem)
    except ValueError as error:
      assert re.search('model has none .it has linear', str(error)), name
      refused.append(name)
  needy = [name for name in methods.METHODS if methods.get(name).card.needs]
  assert refused == needy


def test_the_last_block_alone_is_retrained():
  problem = _problem(_wrap(Net()))
  cfk = methods.get('cfk')
  settings = hp.from_config(
    cfk.Hparams, {'num_blocks': 1, 'num_epochs': 1, 'batch_size': 8}
  )
  compiled = cfk._replace(init=jax.jit(cfk.init), epoch=jax.jit(cfk.epoch))
  found, _ = method_lib.run(
    compiled, settings, Draws(jax.random.key(0)), problem
  )
  changed = {
    name
    for name, layer in found['params'].items()
    if any(
      not np.array_equal(a, b)
      for a, b in zip(
        jax.tree.leaves(layer),
        jax.tree.leaves(problem.start['params'][name]),
        strict=True,
      )
    )
  }
  assert changed == {'k_third', 'b_head'}
