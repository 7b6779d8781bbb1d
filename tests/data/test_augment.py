"""Input: order of the steps, keys by example, against a naive twin."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxmu import platforms
from jaxmu.data import batches
from jaxmu.data.catalog import CATALOG
from jaxmu.types import Dataset, Transform

CIFAR = CATALOG['cifar10'].transform
PLAIN = Transform(mean=(0.5,) * 3, std=(0.25,) * 3)


def _images(count, size=8):
  generator = np.random.default_rng(0)
  return generator.integers(1, 256, (count, size, size, 3), dtype=np.uint8)


def _variants(image, padding):
  """All crops and flips of one image, by the definition."""
  padded = np.pad(image, ((padding,) * 2, (padding,) * 2, (0, 0)))
  height, width = image.shape[:2]
  found = {}
  for top in range(2 * padding + 1):
    for left in range(2 * padding + 1):
      crop = padded[top : top + height, left : left + width]
      found[crop.tobytes()] = (top, left, False)
      found[crop[:, ::-1].tobytes()] = (top, left, True)
  return found


def test_normalise_is_the_published_formula():
  image = _images(2)
  got = batches.normalise(CIFAR, jnp.asarray(image), jnp.float32)
  mean, std = np.array(CIFAR.mean), np.array(CIFAR.std)
  np.testing.assert_allclose(got, (image / 255 - mean) / std, atol=2e-6)
  assert got.dtype == jnp.float32


def test_padding_is_black_before_normalisation():
  transform = Transform(mean=(0.5,) * 3, std=(0.25,) * 3, crop_padding=4)
  white = jnp.full((32, 6, 6, 3), 255, jnp.uint8)
  out = batches.augment_batch(
    transform, jax.random.key(0), jnp.arange(32), white
  )
  values = np.unique(batches.normalise(transform, out, jnp.float32))
  np.testing.assert_array_equal(values, [-2.0, 2.0])


def test_every_result_is_a_crop_and_flip_and_all_occur_equally():
  transform = Transform(
    mean=(0.5,) * 3, std=(0.25,) * 3, flip=True, crop_padding=1
  )
  image = _images(1, size=5)[0]
  count = 9 * 2 * 400
  out = batches.augment_batch(
    transform,
    jax.random.key(3),
    jnp.arange(count),
    jnp.broadcast_to(jnp.asarray(image), (count, *image.shape)),
  )
  variants = _variants(image, padding=1)
  seen = [variants[one.tobytes()] for one in np.asarray(out)]
  counts = np.unique(np.array(seen), axis=0, return_counts=True)[1]
  assert len(counts) == 18
  # Chi-square with 17 degrees of freedom: 40.8 at one in a thousand.
  assert ((counts - 400) ** 2 / 400).sum() < 40.8


def test_flip_alone_mirrors_left_and_right():
  transform = Transform(mean=(0.5,) * 3, std=(0.25,) * 3, flip=True)
  image = _images(64)
  out = batches.augment_batch(
    transform, jax.random.key(1), jnp.arange(64), jnp.asarray(image)
  )
  flipped = (np.asarray(out) == image[:, :, ::-1]).all((1, 2, 3))
  kept = (np.asarray(out) == image).all((1, 2, 3))
  assert (flipped ^ kept).all()
  assert 16 < flipped.sum() < 48


def test_selections_of_a_tpu_equal_slices():
  image = jnp.asarray(_images(40, size=9)[:, :7])
  arguments = jax.random.key(2), jnp.arange(40), image
  for padding in (0, 1, 2, 4, 5):
    for flip in (False, True):
      transform = Transform(PLAIN.mean, PLAIN.std, flip, padding)
      expected = batches.augment_batch(transform, *arguments)
      with platforms.target('tpu'):
        got = batches.augment_batch(transform, *arguments)
      np.testing.assert_array_equal(got, expected)


@pytest.mark.parametrize(('size', 'rows'), [(8, 2), (5, 1), (16, 6)])
def test_packed_images_are_the_same(size, rows):
  plain = Dataset(_images(6, size), np.arange(6))
  packed = plain.packed()
  assert packed.image.shape == (6, rows, 128)
  assert packed.image_shape == plain.image_shape == (size, size, 3)
  packed = jax.tree.map(jnp.asarray, packed)
  index = jnp.array([4, 0, 4])
  np.testing.assert_array_equal(packed.look_up(index), plain.image[index])
  assert packed.packed() is packed
  shape = jax.ShapeDtypeStruct(plain.image.shape, plain.image.dtype)
  assert Dataset(shape, plain.label).packed().image.shape == (6, rows, 128)


def test_no_augmentation_returns_the_image_itself():
  image = jnp.asarray(_images(1)[0])
  assert batches.augment(PLAIN, jax.random.key(0), image) is image


def test_sets_that_must_not_be_augmented():
  for name in ('digits', 'utkface'):
    transform = CATALOG[name].transform
    assert (transform.flip, transform.crop_padding) == (False, 0), name


def test_draw_depends_on_key_and_example_not_on_batch():
  image, index = jnp.asarray(_images(12)), jnp.arange(100, 112)
  key = jax.random.key(5)
  whole = batches.augment_batch(CIFAR, key, index, image)
  order = jnp.array([7, 2, 11])
  some = batches.augment_batch(CIFAR, key, index[order], image[order])
  np.testing.assert_array_equal(some, whole[order])
  one_by_one = [
    batches.augment(CIFAR, jax.random.fold_in(key, 100 + i), image[i])
    for i in range(12)
  ]
  np.testing.assert_array_equal(jnp.stack(one_by_one), whole)
  other = batches.augment_batch(CIFAR, jax.random.key(6), index, image)
  assert (other != whole).any()


def test_members_under_vmap_and_jit_equal_one_by_one():
  image, index = jnp.asarray(_images(6)), jnp.arange(6)
  keys = jax.random.split(jax.random.key(0), 3)

  def one(key):
    return batches.augment_batch(CIFAR, key, index, image)

  together = jax.jit(jax.vmap(one))(keys)
  np.testing.assert_array_equal(together, jnp.stack([one(k) for k in keys]))
