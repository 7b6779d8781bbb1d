"""Published results of small jobs: a table with U-LiRA, and a search."""

import dataclasses
import pathlib
from typing import Any, NamedTuple

import pytest

from jaxmu import hparams as hp
from jaxmu import methods
from jaxmu.published import writing
from jaxmu.published.record import Published
from jaxmu.study import run
from jaxmu.study import settings as settings_lib
from jaxmu.study.settings import Settings
from jaxmu.tuning import driver
from tests.study import small_job

ORIGIN = writing.Origin('python -m jaxmu.main --config=small', 'abc', 20.0)


class Small(NamedTuple):
  """A finished job or search, and its published results."""

  root: pathlib.Path
  work: pathlib.Path
  settings: Settings
  one: Published


@pytest.fixture(scope='session')
def table(tmp_path_factory) -> Small:
  """The small job with two methods; to read, never to change."""
  root = tmp_path_factory.mktemp('published')
  work = tmp_path_factory.mktemp('work') / 'tables' / 'small'
  config = small_job.config(
    work, curve__every=1, splits__num_splits=6, splits__pool=320
  ).to_dict()
  config['compare'] = {'ft': _short('ft')}
  settings = settings_lib.from_config(config)
  run.run(settings)
  one = writing.table(root, 'tables/small', settings, ORIGIN)
  return Small(root, work, settings, one)


@pytest.fixture(scope='session')
def search(tmp_path_factory) -> Small:
  """A search of two methods; to read, never to change."""
  root = tmp_path_factory.mktemp('published')
  work = tmp_path_factory.mktemp('work')
  config: dict[str, Any] = small_job.config(work).to_dict()
  config['splits'].update(design='main', pool=0, num_splits=1, forget_sets=1)
  config['unlearn'] = {'method': 'ft', 'hparams': _short('ft')}
  config['compare'] = {'ga': _short('ga')}
  config['search'] = {
    **{'trials': 2, 'initialisations': 1, 'sampler': 'random'},
    **{'judges': 1, 'finalists': 1, 'grid': {}},
    'space': {'batch_size': 64, 'num_epochs': (1, 2), 'ga': {'momentum': 0.9}},
  }
  settings = settings_lib.from_config(config)
  driver.run(settings)
  one = writing.search(root, 'search', settings, ORIGIN)
  return Small(root, work, settings, one)


def _short(method: str) -> dict[str, Any]:
  values = hp.defaults(methods.get(method).Hparams)
  return {**values, 'num_epochs': 1}


def changed(one: Published, **fields: Any) -> Published:
  """Return published results with other fields in their record."""
  return dataclasses.replace(one, record={**one.record, **fields})
