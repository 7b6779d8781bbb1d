"""The splits of a job are the published ones, in their order."""

import numpy as np
import pytest

from jaxmu.data import datasets
from jaxmu.study import job
from jaxmu.types import Transform
from tests.data.test_splits import PUBLISHED, digest
from tests.study import small_job


@pytest.mark.parametrize('num_dev', PUBLISHED)
def test_main_design_is_the_published_split(tmp_path, num_dev):
  (_, retain), (forget, val), _ = PUBLISHED[num_dev]
  source = datasets.Source(
    name='empty',
    image=np.zeros((num_dev, 0, 0, 3), np.uint8),
    label=np.zeros(num_dev, np.int32),
    num_dev=num_dev,
    num_classes=1,
    transform=Transform(mean=(0, 0, 0), std=(1, 1, 1)),
    fingerprint='',
  )
  design = job.make_design(
    small_job.make(tmp_path, splits__design='main', splits__pool=0), source
  )
  assert digest(design.retain[0]) == retain
  assert digest(design.forget[0]) == forget
  assert digest(design.val) == val
