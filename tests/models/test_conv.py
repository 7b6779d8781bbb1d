"""All formulations of the convolution are equal."""

import functools
import itertools
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from jaxmu import platforms
from jaxmu.models.conv import choose, columns, depthwise, parts, winograd

WIDTH, BATCH = 3, 4
# Every kind of layer of ResNet-18 at 32x32 (the stem on a smaller map, for
# speed): map in, channels in and out, kernel, stride.
LAYERS = {
  'stem': (8, 3, WIDTH, 7, 2),
  'stage1': (8, WIDTH, WIDTH, 3, 1),
  'stage2_entry': (8, WIDTH, 2 * WIDTH, 3, 2),
  'stage2_shortcut': (8, WIDTH, 2 * WIDTH, 1, 2),
  'stage2': (4, WIDTH, WIDTH, 3, 1),
  'stage3_entry': (4, WIDTH, 2 * WIDTH, 3, 2),
  'stage3': (2, WIDTH, WIDTH, 3, 1),
  'stage4_entry': (2, WIDTH, 2 * WIDTH, 3, 2),
  'stage4_shortcut': (2, WIDTH, 2 * WIDTH, 1, 2),
  'stage4': (1, WIDTH, WIDTH, 3, 1),
  'four_tiles_wide': (16, WIDTH, WIDTH, 3, 1),
  'wide': (8, WIDTH, 40, 3, 1),
  'odd': (7, WIDTH, WIDTH, 3, 2),
  'photograph': (34, WIDTH, WIDTH, 3, 2),
}
IMPLS = (
  'auto',
  'library',
  'patches',
  'blocks',
  'columns',
  'dense',
  'winograd',
)
# What has no whole tiles is not done by Winograd's formulation; one will do.
TILED = ('stage1', 'stage2', 'four_tiles_wide', 'stage3')


def _layer(name, members=()):
  size, channels, features, taps, stride = LAYERS[name]
  rng = np.random.default_rng(sum(map(ord, name)))
  out = (size + 2 * (taps // 2) - taps) // stride + 1
  x = rng.standard_normal((*members, BATCH, size, size, channels))
  kernel = rng.standard_normal((*members, taps, taps, channels, features))
  dy = rng.standard_normal((*members, BATCH, out, out, features))
  options = {'stride': stride, 'padding': taps // 2}
  return jnp.asarray(x), jnp.asarray(kernel), jnp.asarray(dy), options


def _plain(x, kernel, *, stride, padding):
  return lax.conv_general_dilated(
    x,
    kernel,
    (stride, stride),
    ((padding, padding), (padding, padding)),
    dimension_numbers=('NHWC', 'HWIO', 'NHWC'),
  )


@functools.partial(jax.jit, static_argnums=0)
def _all(function, x, kernel, dy):
  y, pull = jax.vjp(function, x, kernel)
  return (y, *pull(dy))


def _is_close(ours, theirs):
  return all(
    np.shape(a) == np.shape(b) and np.allclose(a, b, rtol=1e-10, atol=1e-10)
    for a, b in zip(ours, theirs, strict=True)
  )


@pytest.mark.parametrize('impl', IMPLS)
def test_equals_the_plain_convolution(x64, impl):
  wrong = []
  for name in TILED if impl == 'winograd' else LAYERS:
    x, kernel, dy, options = _layer(name)
    ours = _all(
      lambda x, k, o=options: choose.conv(x, k, impl=impl, **o), x, kernel, dy
    )
    theirs = _all(lambda x, k, o=options: _plain(x, k, **o), x, kernel, dy)
    if not _is_close(ours, theirs):
      wrong.append(name)
  assert not wrong


def test_what_runs_on_a_gpu_equals_the_plain_convolution(x64, monkeypatch):
  monkeypatch.setitem(LAYERS, 'large', (10, 8, WIDTH, 3, 1))
  wrong = []
  for name in LAYERS:
    x, kernel, dy, options = _layer(name, members=(2,))
    theirs = _member_by_member(
      lambda x, k, o=options: _plain(x, k, **o), x, kernel, dy
    )
    with platforms.target('gpu'):
      function = lambda x, k, o=options: choose.conv(x, k, **o)  # noqa: E731
      one = lambda *member, f=function: _all(f, *member)  # noqa: E731
      ours = jax.vmap(one)(x, kernel, dy)
    if not _is_close(ours, theirs):
      wrong.append(name)
  assert not wrong


def _member_by_member(function, *arrays):
  results = [_all(function, *member) for member in zip(*arrays, strict=True)]
  return [jnp.stack(part) for part in zip(*results, strict=True)]


@pytest.fixture
def on_cpu():
  with platforms.target('cpu'):
    yield


@pytest.fixture
def on_gpu():
  with platforms.target('gpu'):
    yield


def test_on_a_gpu_small_maps_are_products(on_gpu):
  # Under vmap the library's convolution is a grouped one.
  chosen = {
    (side, taps): choose.choose(
      (256, side, side, 64), (taps, taps, 64, 64), 1, taps // 2, jnp.bfloat16
    )
    for side in (1, 2, 4, 8, 56)
    for taps in (1, 3)
  }
  assert chosen.pop((56, 3)) == 'library'
  assert set(chosen.values()) == {'patches', 'dense'}
  stem = (256, 32, 32, 3), (7, 7, 3, 64), 2, 3
  assert choose.choose(*stem, jnp.bfloat16) == 'blocks'


def test_no_chosen_convolution_is_grouped_on_a_gpu(on_gpu):
  def text_of(function, x, kernel):
    shape = jax.eval_shape(jax.vmap(function), x, kernel)
    one = lambda *member: _all(function, *member)  # noqa: E731
    return str(jax.make_jaxpr(jax.vmap(one))(x, kernel, jnp.zeros(shape.shape)))

  texts = {}
  for side, taps, stride in itertools.product(
    (1, 4, 32, 56), (1, 3, 7), (1, 2)
  ):
    options = {'stride': stride, 'padding': taps // 2}
    for channels in (3, 8):
      x = jnp.zeros((2, 3, side, side, channels))
      texts[side, taps, channels, stride] = text_of(
        lambda x, k, o=options: choose.conv(x, k, **o),
        x,
        jnp.zeros((2, taps, taps, channels, 4)),
      )
    texts[side, taps, 'depthwise', stride] = text_of(
      lambda x, k, o=options: depthwise.depthwise(x, k, **o),
      x,
      jnp.zeros((2, taps, taps, 1, 8)),
    )
  counts = {
    name: re.findall(r'(?:feature|batch)_group_count=(\d+)', text)
    for name, text in texts.items()
  }
  assert any(counts.values())
  assert not {name for name, found in counts.items() if {*found} - {'1'}}


@pytest.mark.parametrize('impl', IMPLS)
def test_equals_the_plain_convolution_for_many_members(x64, impl):
  wrong = []
  for name in ('stage2', 'stage2_entry', 'stage3'):
    x, kernel, dy, options = _layer(name, members=(2,))
    theirs = _member_by_member(
      lambda x, k, o=options: _plain(x, k, **o), x, kernel, dy
    )
    function = lambda x, k, o=options: choose.conv(x, k, impl=impl, **o)  # noqa: E731
    one = lambda member, f=function: _all(f, *member)  # noqa: E731
    for how in (lax.map, lambda one, members: jax.vmap(one)(members)):
      if not _is_close(how(one, (x, kernel, dy)), theirs):
        wrong.append((name, how))
  assert not wrong


@pytest.mark.parametrize('impl', IMPLS)
def test_gradient_inside_a_scan_has_no_slow_convolution(impl):
  x, kernel, dy, options = _layer('stage2_entry')

  def body(carry, _):
    function = lambda x, k: choose.conv(x, k, impl=impl, **options)  # noqa: E731
    return carry, _all(function, *carry)

  text = str(
    jax.make_jaxpr(lambda c: lax.scan(body, c, length=2))((x, kernel, dy))
  )
  convolutions = [line for line in text.split('conv_general_dilated[')[1:]]
  assert bool(convolutions) == (impl in ('library', 'columns'))
  for line in convolutions:
    assert 'lhs_dilation=(1, 1)' in line
    # Gaps in the kernel are fast where examples are the channels.
    assert 'rhs_dilation=(1, 1)' in line or impl == 'columns'
    assert 'lhs_spec=(0, 3, 1, 2), rhs_spec=(3, 2, 0, 1)' in line


@pytest.mark.parametrize(
  ('name', 'impl'),
  [
    ('stem', 'blocks'),
    ('stage2', 'winograd'),
    ('photograph', 'blocks'),
    ('photograph', 'patches'),
  ],
)
def test_slices_of_the_batch_add_up(x64, monkeypatch, name, impl):
  monkeypatch.setattr(parts, 'NUMBERS', 16 * 4 * 4 * WIDTH)
  x, kernel, dy, options = _layer(name)
  x, dy = jnp.tile(x, (12, 1, 1, 1)), jnp.tile(dy, (12, 1, 1, 1))
  x = x * jnp.arange(48.0).reshape(-1, 1, 1, 1)
  ours = _all(
    lambda x, k: choose.conv(x, k, impl=impl, **options), x, kernel, dy
  )
  theirs = _all(lambda x, k: _plain(x, k, **options), x, kernel, dy)
  for a, b in zip(ours, theirs, strict=True):
    np.testing.assert_allclose(a, b, rtol=1e-10, atol=1e-8)


@pytest.mark.parametrize(
  ('batch', 'most', 'slices'),
  [(48, 16, 3), (106, 16, 1), (7, 16, 1), (64, 1, 64)],
)
def test_slices_are_large_or_whole(on_cpu, batch, most, slices):
  x = jnp.arange(batch * 3).reshape(batch, 3)
  cut = parts.split_batch(x, most)
  assert cut.shape == (slices, batch // slices, 3)
  np.testing.assert_array_equal(parts.join_batch(cut), x)


@pytest.mark.parametrize('impl', IMPLS)
def test_stem_has_no_input_gradient(x64, impl):
  x, kernel, dy, options = _layer('stem')
  _, dx, dkernel = _all(
    lambda x, kernel: choose.conv(
      x, kernel, impl=impl, input_grad=False, **options
    ),
    x,
    kernel,
    dy,
  )
  expected = _all(lambda x, k: _plain(x, k, **options), x, kernel, dy)[2]
  np.testing.assert_array_equal(dx, jnp.zeros_like(x))
  np.testing.assert_allclose(dkernel, expected, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize('impl', IMPLS)
@pytest.mark.parametrize(
  ('name', 'dead'), [('stage4_entry', 5), ('stage4', 8), ('stage3', 0)]
)
def test_dead_taps_have_exactly_zero_gradient(impl, name, dead):
  x, kernel, dy, options = _layer(name)
  gradient = _all(
    lambda x, kernel: choose.conv(x, kernel, impl=impl, **options),
    x,
    kernel,
    dy,
  )[2]
  taps = np.asarray(gradient).reshape(9, -1)
  assert np.sum(np.all(taps == 0, axis=1)) == dead


def test_auto_multiplies_less_in_single_precision_only(on_cpu):
  wide = (256, 8, 8, 64), (3, 3, 64, 64), 1, 1
  assert choose.choose(*wide, jnp.float32) == 'winograd'
  assert choose.choose(*wide, jnp.float64) == 'library'
  assert choose.choose(*wide, jnp.bfloat16) == 'library'
  few = (16, *wide[0][1:]), *wide[1:]
  assert choose.choose(*few, jnp.float32) == 'library'


def test_auto_lets_columns_be_channels_where_the_library_is_fast(on_cpu):
  narrow, stem = ((3, 3, 16, 16), 1, 1), ((7, 7, 3, 64), 2, 3)
  images = (128, 8, 8, 16), (128, 32, 32, 3)
  for shape, layer, other in zip(
    images, (narrow, stem), ('library', 'blocks'), strict=True
  ):
    assert choose.choose(shape, *layer, jnp.float32) == 'columns'
    assert choose.choose(shape, *layer, jnp.bfloat16) == other
    few = (16, *shape[1:])
    assert choose.choose(few, *layer, jnp.float32) == other


@pytest.mark.parametrize('impl', ['columns', 'library'])
def test_kernel_gradients_in_slices_add_up(x64, on_cpu, monkeypatch, impl):
  monkeypatch.setattr(columns, '_SLOPES', 4 * 4 * WIDTH)
  x, kernel, dy, options = _layer('stem')
  x, dy = jnp.tile(x, (17, 1, 1, 1)), jnp.tile(dy, (17, 1, 1, 1))
  x = x * jnp.arange(68.0).reshape(-1, 1, 1, 1)
  ours = _all(
    lambda x, k: choose.conv(x, k, impl=impl, **options), x, kernel, dy
  )
  theirs = _all(lambda x, k: _plain(x, k, **options), x, kernel, dy)
  for a, b in zip(ours, theirs, strict=True):
    np.testing.assert_allclose(a, b, rtol=1e-10, atol=1e-8)


@pytest.mark.parametrize('name', ['stage1', 'stage2', 'four_tiles_wide'])
def test_fewer_multiplications_keep_single_precision(name):
  x, kernel, dy, options = _layer(name)
  ours = _all(
    lambda x, k: choose.conv(x, k, impl='winograd', **options), x, kernel, dy
  )
  theirs = _all(lambda x, k: _plain(x, k, **options), x, kernel, dy)
  for a, b in zip(ours, theirs, strict=True):
    assert a.dtype == jnp.float32
    np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5 * jnp.abs(b).max())


def test_refuses_to_tile_what_has_no_whole_tiles():
  x, kernel, _, _ = _layer('odd')
  with pytest.raises(ValueError, match='multiples of 4'):
    winograd.conv(x, kernel, 1, 1, True)


def test_live_taps_are_those_that_meet_pixels():
  for size, taps, stride in itertools.product(range(1, 6), (1, 3, 7), (1, 2)):
    padding = taps // 2
    pixels = np.pad(np.ones(size), padding)
    windows = np.lib.stride_tricks.sliding_window_view(pixels, taps)[::stride]
    live = np.flatnonzero(windows.any(0))
    ours = parts.live_taps(size, taps, stride, padding)
    assert list(ours) == list(live), (size, taps, stride)


def test_refuses_an_unknown_formulation():
  x, kernel, _, options = _layer('stage4')
  with pytest.raises(ValueError, match="'fft'; choose one of: auto, library"):
    choose.conv(x, kernel, impl='fft', **options)


def test_refuses_other_channels():
  x, kernel, _, options = _layer('stage4')
  with pytest.raises(ValueError, match='3 channels'):
    choose.conv(x, kernel[:, :, :2], **options)


@pytest.mark.parametrize('shape', [(6, 3, 4), (6, 4, 3), (6, 1, 5), (6, 5, 1)])
def test_a_linear_product_equals_the_sum_of_outer_products(x64, shape):
  count, inputs, outputs = shape
  rng = np.random.default_rng(0)
  x = rng.standard_normal((2, count // 2, inputs))
  kernel = rng.standard_normal((inputs, outputs))
  dy = rng.standard_normal((2, count // 2, outputs))
  y, pull = jax.vjp(parts.product, jnp.asarray(x), jnp.asarray(kernel))
  dx, dkernel = pull(jnp.asarray(dy))
  flat = x.reshape(count, inputs), dy.reshape(count, outputs)
  outer = sum(np.outer(a, b) for a, b in zip(*flat, strict=True))
  np.testing.assert_allclose(y, x @ kernel, rtol=1e-12)
  np.testing.assert_allclose(dkernel, outer, rtol=1e-12)
  np.testing.assert_allclose(dx, dy @ kernel.T, rtol=1e-12)
