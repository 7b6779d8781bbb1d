"""A job on few images ends with a report, whatever it cannot measure."""

import numpy as np
import pytest

from jaxmu.report import results
from jaxmu.study import job as job_lib
from jaxmu.study import run
from tests.study import small_job


@pytest.fixture(name='make')
def _make(tmp_path, monkeypatch):
  """Return settings of the small job on a set of some images."""
  monkeypatch.setenv('JAXMU_DATA_DIR', str(tmp_path / 'data'))
  monkeypatch.setenv('JAXMU_CACHE_DIR', str(tmp_path / 'cache'))

  def make(count, **changes):
    folder = tmp_path / 'data' / 'mine'
    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(0)
    for part, size in (('train', count), ('test', max(count // 4, 1))):
      image = rng.integers(0, 256, (size, 8, 8, 3), np.uint8)
      np.savez(folder / f'{part}.npz', image=image, label=np.arange(size) % 3)
    fields = {
      'data__name': 'mine',
      'splits__num_splits': 2,
      'splits__forget_sets': 1,
      'splits__pool': 0,
      'train__num_epochs': 1,
    }
    return small_job.make(tmp_path / 'job', **{**fields, **changes})

  return make


def test_a_pool_that_leaves_nothing_for_validation_is_refused(make):
  with pytest.raises(ValueError) as caught:
    job_lib.open_job(make(320, splits__pool=320))
  assert str(caught.value) == (
    'pool is 320: no example would be left for validation; choose one from 12 '
    'to 319, or none for 304 (config.splits.pool=0)'
  )
  for pool in (0, 12, 304, 319):
    design = job_lib.open_job(make(320, splits__pool=pool)).design
    assert design.val.size and design.retain.size and design.forget.size


MAIN = {
  'splits__design': 'main',
  'splits__num_splits': 1,
  'splits__seeds': 1,
}
REFERENCE = {'splits__design': 'reference'}


@pytest.mark.parametrize(
  'count, changes',
  [
    (12, {'splits__forget_fraction': 0.2}),
    *(
      pytest.param(*case, marks=pytest.mark.slow)
      for case in (
        (12, MAIN),
        (24, REFERENCE),
        (40, {'splits__num_splits': 6, 'splits__pool': 39}),
        (40, {**MAIN, 'splits__forget': 'class:1'}),
        (320, {'splits__num_splits': 4, 'splits__forget_sets': 10}),
      )
    ),
  ],
)
def test_few_images_give_a_report(make, count, changes):
  job = run.run(make(count, **changes))
  rows = results.read_csv(job.folder / 'results.csv')
  value = {(row.method, row.metric): row.value for row in rows}
  for name in ('ra', 'fa', 'va', 'ta'):
    assert 0 <= value['msg', name] <= 1
  assert (job.folder / 'report.html').is_file()
