"""A data set as tfds' own builders make them: shuffled, PNG images."""

import numpy as np
import tensorflow_datasets as tfds
from PIL import Image

COUNT = 40


class Stock(tfds.core.GeneratorBasedBuilder, skip_registration=True):
  """A set as tfds' own builders make them: shuffled, PNG images."""

  VERSION = tfds.core.Version('3.0.2')
  parts = ('train', 'test')
  numbered = True
  shape: tuple = (8, 8, 3)
  label = tfds.features.ClassLabel(num_classes=COUNT)

  def _info(self):
    features = {
      'image': tfds.features.Image(shape=self.shape),
      'label': self.label,
    }
    if self.numbered:
      features['id'] = tfds.features.Text()
    return tfds.core.DatasetInfo(
      builder=self, features=tfds.features.FeaturesDict(features)
    )

  def _split_generators(self, dl_manager):
    return {part: self._generate_examples(part) for part in self.parts}

  def _generate_examples(self, part):
    for k in range(COUNT):
      record = {'image': Image.fromarray(picture(k, part)), 'label': k}
      if self.numbered:
        record['id'] = f'{part}_{k:05d}'
      yield k, record


def picture(k, part):
  seed = k + (COUNT if part == 'test' else 0)
  return np.random.default_rng(seed).integers(0, 256, (8, 8, 3), np.uint8)


def prepare(tmp_path, **attributes):
  """Prepare `Stock` with other attributes, as array_record; return it."""
  cls = type('Stock', (Stock,), attributes, skip_registration=True)
  builder = cls(data_dir=tmp_path / 'data', file_format='array_record')
  builder.download_and_prepare(
    download_config=tfds.download.DownloadConfig(try_download_gcs=False)
  )
  return builder
