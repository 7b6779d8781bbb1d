"""Populations on disk: `Models.save` and `jaxmu.load`.

<folder>/record.json   names, settings and hyper-parameters
         models.npz    leaves of the variables [P, ...], by path
         members.npz   members, losses and failures
         design.npz    index arrays of the design
         data.npz      images and labels, where the data set has no name
         original/     the originals of unlearned models
"""

import dataclasses
import json
import os
import pathlib
from typing import Any

import numpy as np
from flax import traverse_util

from jaxmu import files, methods
from jaxmu.api import inputs, sweeps
from jaxmu.api import setup as setup_lib
from jaxmu.api.populations import Models
from jaxmu.data import catalog, datasets, formats, splits
from jaxmu.report import results
from jaxmu.study.job import Members

_FORMAT = 'jaxmu models 1'
_SETTINGS = ('precision', 'seed', 'seeds', 'seed_mode')


def save(models: Models, path: str | os.PathLike) -> pathlib.Path:
  """Write a population to a folder; see `Models.save`."""
  target = files.path(path).resolve()
  if target.exists() and not is_saved(target):
    raise ValueError(
      f'{target} exists and holds no saved models; choose another folder'
    )
  with files.atomic_folder(target.parent) as draft:
    _write(models, draft, with_data=True)
    files.publish_folder(draft, target)
  return target


def is_saved(path: pathlib.Path) -> bool:
  """Whether a folder holds what `save` writes."""
  record = path / 'record.json'
  return record.is_file() and _FORMAT in record.read_text(errors='replace')


def _write(models: Models, folder: pathlib.Path, *, with_data: bool) -> None:
  setup, data = models.setup, models.data
  flat: dict[str, Any] = traverse_util.flatten_dict(models.variables, sep='/')
  infos = {f'info_{k}': v for k, v in models.infos.items()}
  more = {} if models.source is None else {'source': models.source}
  members = {'failed': models.failed, **models.members._asdict()}
  design = {
    f.name: getattr(setup.design, f.name)
    for f in dataclasses.fields(splits.Design)
  }
  files.write_arrays(folder / 'models.npz', flat)
  files.write_arrays(folder / 'members.npz', {**members, **infos, **more})
  files.write_arrays(folder / 'design.npz', design)
  named = data.name in catalog.CATALOG or data.name in datasets.available()
  if with_data and not named:
    arrays = {'image': data.image, 'label': data.label}
    files.write_arrays(folder / 'data.npz', arrays)
  record = {
    'format': _FORMAT,
    'name': models.name,
    'hparams': list(models.hparams),
    'variant': list(models.variant),
    'model': setup.model_name,
    'options': dict(setup.model_options),
    **{name: getattr(setup, name) for name in _SETTINGS},
    'data': {
      'name': data.name,
      'fingerprint': data.fingerprint,
      'num_dev': data.num_dev,
      'num_classes': data.num_classes,
      'transform': dataclasses.asdict(data.transform),
    },
  }
  results.write_json(folder / 'record.json', record)
  if models.original is not None:
    (folder / 'original').mkdir()
    _write(models.original, folder / 'original', with_data=False)


def _load(path: pathlib.Path) -> dict[str, np.ndarray]:
  try:
    return formats.read_archive(path, needed=())
  except ValueError as error:
    what = 'is damaged' if path.exists() else 'is missing'
    raise ValueError(f'{path} {what}; save the models again') from error


def read(path: pathlib.Path, *, data: Any = None, model: Any = None) -> Models:
  """Read what `save` wrote; see `jaxmu.load`."""
  try:
    return _read(path, data, model, None)
  except (OSError, KeyError, TypeError, json.JSONDecodeError) as error:
    raise ValueError(
      f'{path} is damaged ({type(error).__name__}: {error}); save the models '
      'again'
    ) from error


def _read(
  path: pathlib.Path, data: Any, model: Any, setup: setup_lib.Setup | None
) -> Models:
  record = json.loads((path / 'record.json').read_text())
  if setup is None:
    setup = _read_setup(path, record, data, model)
  flat = _load(path / 'models.npz')
  arrays = _load(path / 'members.npz')
  variables = traverse_util.unflatten_dict(flat, sep='/')
  original = None
  if (path / 'original').is_dir():
    original = _read(path / 'original', data, model, setup)
  try:
    method = methods.get(record['name'])
  except ValueError:
    method = None  # a plug-in that was given as an object
  hparams = record['hparams']
  if method is not None:
    hparams = [sweeps.in_order(method.Hparams, h) for h in hparams]
  return Models(
    name=record['name'],
    method=method,
    setup=setup,
    members=Members(*(arrays[name] for name in Members._fields)),
    hparams=hparams,
    variant=record['variant'],
    variables={'batch_stats': {}, **variables},
    infos={
      k.removeprefix('info_'): v
      for k, v in arrays.items()
      if k.startswith('info_')
    },
    failed=arrays['failed'],
    original=original,
    source=arrays.get('source'),
  )


def _read_setup(
  path: pathlib.Path, record: dict[str, Any], data: Any, model: Any
) -> setup_lib.Setup:
  facts = record['data']
  if data is not None:
    source = inputs.load_data(data)
  elif (path / 'data.npz').is_file():
    source = _stored_data(path, facts)
  else:
    source = inputs.load_data(facts['name'], **facts['transform'])
  if source.fingerprint != facts['fingerprint']:
    raise ValueError(
      f'the models of {path} were trained on other images or labels than '
      f'{source.name} holds now; give the data set as data=...'
    )
  if not record['model'] and model is None:
    raise ValueError(
      f'the network of {path} was given as an object, which is not saved; '
      'give it again as load(path, model=...)'
    )
  design = _load(path / 'design.npz')
  dropped = int(design.pop('dropped'))
  options = record['options']
  return setup_lib.Setup(
    data=source,
    design=inputs.Design(**design, dropped=dropped),
    model=setup_lib.build_model(
      model or record['model'], source, options, record['precision']
    ),
    model_name=record['model'],
    model_options=options,
    **{name: record[name] for name in _SETTINGS},
  )


def _stored_data(path: pathlib.Path, facts: dict[str, Any]) -> inputs.Data:
  arrays = _load(path / 'data.npz')
  image, label, cut = arrays['image'], arrays['label'], facts['num_dev']
  source = datasets.from_arrays(
    image[:cut],
    label[:cut],
    test_images=image[cut:],
    test_labels=label[cut:],
    name=facts['name'],
    num_classes=facts['num_classes'],
    size=image.shape[1],
  )
  return inputs.load_data(source, **facts['transform'])
