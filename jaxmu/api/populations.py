"""Populations of models and their predictions.

original = jaxmu.train(data, design)
print(original)               # a table
original.save('original')     # jaxmu.load('original')
original.export('seed{seed}_split{split}.safetensors')

`Models.save` writes this folder, which `jaxmu.load` reads:

<folder>/record.json   names, settings and hyper-parameters
         models.npz    leaves of the variables [P, ...], by path
         members.npz   members, losses and failures
         design.npz    index arrays of the design
         data.npz      images and labels, where the data set has no name
         original/     the originals of unlearned models
"""

import dataclasses
import functools
import os
import pathlib
import string
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import traverse_util

from jaxmu import files, methods, population, precision, terms
from jaxmu.api import inputs, printing
from jaxmu.api import setup as setup_lib
from jaxmu.api.members import in_order
from jaxmu.api.setup import Setup
from jaxmu.data import catalog, datasets, formats, splits
from jaxmu.method import Method
from jaxmu.methods.parts import forward
from jaxmu.models import checkpoints
from jaxmu.report import results
from jaxmu.study import execution, stages
from jaxmu.study.job import Members
from jaxmu.types import Task, Variables


@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class Models(printing.Tabular):
  """P models of one method; made by `train`, `retrain`, `unlearn` and `load`.

  Attributes:
    name: 'original', 'retrain' or the name of the unlearning method.
    method: the method that trained them; None for models read from files.
    setup: data, design, model and seed.
    members: initialisation, split and forget set of each model, i64[P] each;
      the forget set is -1 where a model serves all of its split.
    hparams: hyper-parameters of each model as plain numbers, P dicts.
    variant: the values that were tried on all models, such as
      'learning_rate=0.01', P texts; '' where there was one.
    variables: `{'params', 'batch_stats'}`, float32 leaves [P, ...] on the host.
    infos: reports of the method per epoch, f64[P, E] by name, including
      'loss'; NaN for epochs that a model does not train.
    failed: i64[P], the first epoch with a loss that is not finite, -1 for none.
    original: the models that unlearning started from, or None.
    source: i64[P], positions of each model's original, or None.
  """

  name: str
  method: Method | None
  setup: Setup
  members: Members
  hparams: Sequence[Mapping[str, Any]]
  variant: list[str]
  variables: Variables
  infos: Mapping[str, np.ndarray]
  failed: np.ndarray
  original: 'Models | None' = None
  source: np.ndarray | None = None

  def __len__(self) -> int:
    return self.members.size

  @property
  def data(self) -> inputs.Data:
    """The data set."""
    return self.setup.data

  @property
  def design(self) -> inputs.Design:
    """Which examples each model retains and forgets."""
    return self.setup.design

  @property
  def losses(self) -> np.ndarray:
    """Mean training loss of each epoch, f64[P, E]."""
    return self.infos.get('loss', np.zeros((len(self), 0)))

  @property
  def variants(self) -> list[str]:
    """The distinct variants, in order."""
    return list(dict.fromkeys(self.variant))

  @functools.cached_property
  def scores(self) -> population.Predictions:
    """Log-odds and correctness on all of the data set; computed once."""
    return score(self)

  def model(self, member: int) -> Variables:
    """Return `{'params', 'batch_stats'}` of one model, without a leading axis.

    Args:
      member: position from 0 to P - 1.

    Raises:
      ValueError: there is no such member.
    """
    self._check_member(member)
    return jax.tree.map(lambda x: x[member], self.variables)

  def select(self, where: Any) -> 'Models':
    """Return some of the models.

    Args:
      where: bool[P], positions int[n], or a slice.
    """
    if not isinstance(where, slice):
      where = np.asarray(where)
    index = np.arange(len(self))[where]
    source = None if self.source is None else self.source[index]
    return dataclasses.replace(
      self,
      members=stages.select_members(self.members, index),
      hparams=[self.hparams[p] for p in index],
      variant=[self.variant[p] for p in index],
      variables=jax.tree.map(lambda x: x[index], self.variables),
      infos={name: values[index] for name, values in self.infos.items()},
      failed=self.failed[index],
      source=source,
    )

  def columns(self) -> dict[str, list[Any]]:
    """Return one line per model."""
    member = self.members
    columns: dict[str, list[Any]] = {
      'seed': member.seed.tolist(),
      'split': member.split.tolist(),
    }
    if (member.forget_set >= 0).any():
      columns['forget set'] = member.forget_set.tolist()
    for name in self._varied():
      columns[name] = [h[name] for h in self.hparams]
    finite = [row[np.isfinite(row)] for row in self.losses]
    columns['last loss'] = [float(r[-1]) if r.size else None for r in finite]
    if not any(r.size for r in finite):
      del columns['last loss']
    if (self.failed >= 0).any():
      columns['failed in epoch'] = [e if e >= 0 else None for e in self.failed]
    return columns

  def __repr__(self) -> str:
    varied = self._varied()
    common = self.hparams[0] if self.hparams else {}
    settings = printing.settings(
      {k: v for k, v in common.items() if k not in varied}, ', '
    )
    title = self.method.card.title if self.method else 'read from files'
    heading = (
      f'{self.name} ({title}): {terms.count(len(self), "model")}, '
      f'{self.setup.describe()}'
    )
    return printing.summary(
      '\n'.join(filter(None, [heading, settings])), self.columns()
    )

  def plot(self) -> Any:
    """Draw the training loss of every epoch; a `matplotlib.figure.Figure`.

    Raises:
      ValueError: the losses are unknown, as for models read from files.
    """
    from jaxmu.report import plots

    if not self.losses.size:
      raise ValueError(
        f'the losses of {self.name} are unknown; plot a population that was '
        'trained here'
      )
    return plots.training_curves({'': {self.name: self.losses}}, ylabel='Loss')

  def save(self, path: str | os.PathLike) -> pathlib.Path:
    """Write models, settings and originals to a folder for `jaxmu.load`.

    Args:
      path: folder to write, atomically.

    Raises:
      ValueError: `path` exists and holds something else.
      OSError: the folder cannot be written.
    """
    target = files.path(path).resolve()
    if target.exists() and not is_saved(target):
      raise ValueError(
        f'{target} exists and holds no saved models; choose another folder'
      )
    with files.atomic_folder(target.parent) as draft:
      _write(self, draft, with_data=True)
      files.publish_folder(draft, target)
    return target

  def export(
    self,
    path: str | os.PathLike,
    *,
    member: int | None = None,
    like: str | os.PathLike | None = None,
  ) -> list[pathlib.Path]:
    """Write models as checkpoints, one file each.

    Args:
      path: a file of a kind that `jaxmu.models.checkpoints` knows, such as
        'net.safetensors' or 'net.msgpack' (Flax). For several models the name
        holds one or more of `{member}`, `{seed}`, `{split}`, `{forget_set}`.
      member: write only this one.
      like: a checkpoint whose names and structure the files copy.

    Returns:
      The paths written.

    Raises:
      ValueError: the names of several models are equal, or the kind of file is
        unknown.
    """
    chosen = range(len(self)) if member is None else [member]
    fields = [
      name for _, name, _, _ in string.Formatter().parse(str(path)) if name
    ]
    known = ('member', 'seed', 'split', 'forget_set')
    for name in fields:
      if name not in known:
        raise ValueError(
          f'path = {str(path)!r} has the field {{{name}}}; choose from '
          f'{", ".join("{" + k + "}" for k in known)}'
        )
    names = [str(path).format(**self._named(p)) for p in chosen]
    if len(set(names)) < len(names):
      raise ValueError(
        f'path = {str(path)!r} gives {len(names)} models the same name; put '
        "{member} into it, as in 'net{member}.safetensors', or give member=0"
      )
    paths = [files.path(name) for name in names]
    for p, file in zip(chosen, paths, strict=True):
      file.parent.mkdir(parents=True, exist_ok=True)
      checkpoints.write(self.setup.model, self.model(p), file, like=like)
    return paths

  def _named(self, member: int) -> dict[str, int]:
    self._check_member(member)
    names = zip(
      ('seed', 'split', 'forget_set'), self.members.names[member], strict=True
    )
    return {'member': member, **dict(names)}

  def _check_member(self, member: int) -> None:
    if not 0 <= member < len(self):
      raise ValueError(f'member = {member}; choose from 0 to {len(self) - 1}')

  def _varied(self) -> list[str]:
    """Return the names of the hyper-parameters in which models differ."""
    return [
      name
      for name in (self.hparams[0] if self.hparams else {})
      if any(h[name] != self.hparams[0][name] for h in self.hparams)
    ]


@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class Predictions(printing.Tabular):
  """Outputs of models for N images; made by `predict`.

  Attributes:
    models: the models, P of them.
    data: the images, or None for those that the models were trained on.
    labelled: whether the labels of the images are known.
    scores: log-odds, correctness and finiteness of all answers.
  """

  models: Models
  data: inputs.Data | None
  labelled: bool
  scores: population.Predictions

  @property
  def log_odds(self) -> np.ndarray:
    """log(p / (1 - p)) of the true class, f32[P, N].

    Raises:
      ValueError: there are no labels.
    """
    self._check_labels()
    return np.asarray(self.scores.log_odds)

  @property
  def correct(self) -> np.ndarray:
    """Whether the most likely class is the true one, bool[P, N].

    Raises:
      ValueError: there are no labels.
    """
    self._check_labels()
    return np.asarray(self.scores.correct)

  @property
  def finite(self) -> np.ndarray:
    """Whether all logits are finite, bool[P, N]."""
    return np.asarray(self.scores.finite)

  @functools.cached_property
  def logits(self) -> np.ndarray:
    """Outputs before the softmax, f32[P, N, C]; computed on first access."""
    return _logits(self.models, self.data)

  @functools.cached_property
  def probabilities(self) -> np.ndarray:
    """Softmax of the logits, f32[P, N, C]."""
    shifted = self.logits - self.logits.max(axis=-1, keepdims=True)
    exp = np.exp(shifted)
    return exp / exp.sum(axis=-1, keepdims=True)

  @property
  def label(self) -> np.ndarray:
    """The most likely class, i64[P, N]."""
    return self.logits.argmax(axis=-1)

  def columns(self) -> dict[str, list[Any]]:
    """Return one line per model."""
    member = self.models.members
    columns: dict[str, list[Any]] = {
      'seed': member.seed.tolist(),
      'split': member.split.tolist(),
      'images': [self.finite.shape[1]] * len(self.models),
    }
    if self.labelled:
      columns['accuracy'] = [float(row.mean()) for row in self.correct]
      columns['mean log-odds'] = [
        float(row.mean(dtype=np.float64)) for row in self.log_odds
      ]
    if not self.finite.all():
      columns['not finite'] = (~self.finite).sum(axis=1).tolist()
    return columns

  def __repr__(self) -> str:
    models, images = self.finite.shape
    heading = (
      f'{self.models.name}: {terms.count(models, "model")} on '
      f'{terms.count(images, "image")}'
    )
    return printing.summary(heading, self.columns())

  def _check_labels(self) -> None:
    if not self.labelled:
      raise ValueError(
        'the labels of these images are not known; give predict(models, '
        '(images, labels))'
      )


def score(
  models: Models, data: inputs.Data | None = None
) -> population.Predictions:
  """Score all images of a data set with all models, some models at a time.

  Args:
    models: P models.
    data: the images; None for those of the models.

  Returns:
    Arrays [P, N] on the host.
  """
  slices = setup_lib.slices(len(models))
  predictor = models.setup.predictor(max(map(len, slices)), data)
  parts = [
    execution.retry_smaller(
      functools.partial(predictor.run, models.select(index).variables),
      predictor,
    )
    for index in slices
  ]
  return population.Predictions(
    *(np.concatenate(fields) for fields in zip(*parts, strict=True))
  )


_BATCH = 256  # images in one step of the program that computes logits


def _logits(models: Models, data: inputs.Data | None) -> np.ndarray:
  setup = models.setup
  slices = setup_lib.slices(len(models))
  layout = setup_lib.choose_layout(max(map(len, slices)))
  task = setup.task(data)
  key = ('logits', setup.model, setup.data.transform, setup.precision, layout)
  programs = (data or setup.data).programs
  if key not in programs:
    programs[key] = jax.jit(
      lambda task, stacked: population.map_members(
        _logits_of_one, task, stacked, layout=layout
      )
    )
  task = population.replicate(task, layout)
  parts = []
  for index in slices:
    padded = population.pad(models.select(index).variables, layout)
    result = programs[key](task, population.put(padded, layout))
    parts.append(np.asarray(result)[: len(index)])
  return np.concatenate(parts)


def _logits_of_one(task: Task, variables: Variables) -> Any:
  count = task.dataset.label.shape[0]
  index = jnp.arange(-(-count // _BATCH) * _BATCH) % count
  with precision.products(task.precision):

    def body(_: None, index: Any) -> tuple[None, Any]:
      images = forward.clean_images(task, index, forward.dtype_of(variables))
      return None, forward.eval_logits(task, variables, images)

    _, logits = jax.lax.scan(body, None, index.reshape(-1, _BATCH))
  return logits.reshape(-1, logits.shape[-1])[:count].astype(jnp.float32)


_FORMAT = 'jaxmu models 1'
_SETTINGS = ('precision', 'seed', 'seeds', 'seed_mode')


def is_saved(path: pathlib.Path) -> bool:
  """Whether a folder holds what `Models.save` writes."""
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
  """Read what `Models.save` wrote; see `jaxmu.load`."""
  try:
    return _read(path, data, model, None)
  except (OSError, LookupError, TypeError, AttributeError) as error:
    raise ValueError(
      f'{path} is damaged ({type(error).__name__}: {error}); save the models '
      'again'
    ) from error


def _read(
  path: pathlib.Path, data: Any, model: Any, setup: Setup | None
) -> Models:
  try:
    record = files.read_json(path / 'record.json')
  except ValueError as error:
    raise ValueError(
      f'{path} is damaged (record.json: {error}); save the models again'
    ) from None
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
    hparams = [in_order(method.Hparams, h) for h in hparams]
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
) -> Setup:
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
  return Setup(
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
