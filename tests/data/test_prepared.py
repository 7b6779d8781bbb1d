"""Sets that tfds prepared: by name, shuffled, of the wrong kind, damaged."""

import functools
import pathlib

import numpy as np
import pytest
import tensorflow_datasets as tfds

from jaxmu.data import datasets, formats
from tests.data import stock


@pytest.fixture
def load(tmp_path):
  return functools.partial(
    datasets.load, 'stock', data_dir=tmp_path / 'data', cache_dir=tmp_path / 'c'
  )


def test_any_set_of_tfds_opens_by_name_in_the_order_of_its_numbers(
  tmp_path, load
):
  builder = stock.prepare(tmp_path)
  order = [record['label'] for record in builder.as_data_source('train')]
  assert order != sorted(order), 'tfds shuffled nothing: a vacuous test'
  source = load()
  assert source.label.tolist() == [*range(stock.COUNT), *range(stock.COUNT)]
  expected = [
    stock.picture(k, p) for p in ('train', 'test') for k in range(stock.COUNT)
  ]
  np.testing.assert_array_equal(source.image, np.stack(expected))
  assert (source.num_dev, source.num_classes) == (stock.COUNT, stock.COUNT)
  assert not source.transform.flip
  assert 'stock' in datasets.available(tmp_path / 'data')


def test_records_without_numbers_stay_as_stored(tmp_path, load):
  builder = stock.prepare(tmp_path, numbered=False)
  order = [record['label'] for record in builder.as_data_source('train')]
  assert load().label[: stock.COUNT].tolist() == order


def test_missing_split_names_what_is_there_and_the_remedy(tmp_path, load):
  stock.prepare(tmp_path, parts=('train', 'validation'))
  with pytest.raises(ValueError) as error:
    load()
  assert "no split ['test']" in str(error.value)
  assert "['train', 'validation']" in str(error.value)
  assert '--from_tfds=stock --test_fraction=0.2' in str(error.value)


def test_sets_of_another_kind_are_refused(tmp_path, load):
  stock.prepare(tmp_path, shape=(None, None, 3))
  with pytest.raises(ValueError, match='differ in size.*--image_size=64'):
    load()


def test_labels_without_classes_are_refused(tmp_path, load):
  stock.prepare(tmp_path, label=tfds.features.Scalar(np.int64))
  with pytest.raises(ValueError, match='its label is not a class label'):
    load()


def test_format_of_tensorflow_is_refused(tmp_path, load):
  builder = stock.prepare(tmp_path)
  path = builder.data_path / 'dataset_info.json'
  path.write_text(path.read_text().replace('array_record', 'tfrecord'))
  with pytest.raises(ValueError, match='tfrecord.*jaxmu.prepare stock --overw'):
    load()


def test_damaged_files_are_refused_and_leave_no_cache(tmp_path, load):
  builder = stock.prepare(tmp_path)
  [shard] = builder.data_path.glob('*-train*')
  whole = shard.read_bytes()
  for content in (whole[: len(whole) // 2], b''):
    shard.write_bytes(content)
    with pytest.raises(ValueError, match='3.0.2.* cannot be read'):
      load()
  (builder.data_path / 'dataset_info.json').write_text('{')
  with pytest.raises(ValueError, match='dataset_info.json is damaged'):
    load()
  assert not [*(tmp_path / 'c').glob('*')]


def test_damaged_descriptions_and_records_are_named(tmp_path, load):
  """One flipped bit, at 60 places of each file, is reported or harmless."""
  builder = stock.prepare(tmp_path)
  folder = pathlib.Path(builder.data_path)

  def read():
    blocks = list(formats.open_prepared('stock', folder).blocks())
    image, label = (np.concatenate(part) for part in zip(*blocks, strict=True))
    # `id` has no checksum: without it, records stay in another order.
    order = np.lexsort((image[:, 0, 0, 0], label))
    return image[order], label[order]

  expected, silent = read(), []
  for path in sorted(folder.iterdir()):
    whole = path.read_bytes()
    generator = np.random.default_rng(0)
    for place in generator.integers(0, 8 * len(whole), 60).tolist():
      damaged = bytearray(whole)
      damaged[place // 8] ^= 1 << place % 8
      path.write_bytes(bytes(damaged))
      try:
        for one, other in zip(read(), expected, strict=True):
          np.testing.assert_array_equal(one, other)
      except AssertionError:
        silent.append((path.name, place))
      except ValueError as error:
        assert str(folder) in str(error), (path.name, place)
    path.write_bytes(whole)
  assert not silent


def test_our_own_preparation_goes_before_others(tmp_path):
  for version, module, form in (
    ('3.0.2', 'tensorflow_datasets.x', 'tfrecord'),
    ('3.0.1', 'tensorflow_datasets.x', 'array_record'),
  ):
    folder = tmp_path / version
    folder.mkdir()
    (folder / 'dataset_info.json').write_text(
      f'{{"moduleName": "{module}", "fileFormat": "{form}"}}'
    )
  assert formats.newest_prepared(tmp_path).name == '3.0.1'
  (tmp_path / '1.0.0').mkdir()
  (tmp_path / '1.0.0' / 'dataset_info.json').write_text(
    '{"moduleName": "jaxmu.data.official", "fileFormat": "array_record"}'
  )
  assert formats.newest_prepared(tmp_path).name == '1.0.0'


def test_several_configurations_need_a_choice(tmp_path):
  for config in ('blue', 'red'):
    folder = tmp_path / 'set' / config / '1.0.0'
    folder.mkdir(parents=True)
    (folder / 'dataset_info.json').write_text('{}')
  with pytest.raises(ValueError, match='set/blue.*set/red'):
    formats.newest_prepared(tmp_path / 'set')
  assert formats.newest_prepared(tmp_path / 'set' / 'red').parent.name == 'red'
