"""Train original and retrained models, unlearn, and predict.

    original = jaxmu.train(data, design, model='resnet18', seeds=4)
    unlearned = jaxmu.unlearn('msg', original, reinit_fraction=0.2)
    retrained = jaxmu.retrain(original)

Random draws are keyed by the name of the method and of the member (seed, split,
forget set), as in a job: the same settings give the same bits.
"""

import contextlib
import dataclasses
import functools
import io
import os
import pathlib
import sys
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import jax
import numpy as np

from jaxmu import files, methods, models, platforms, population, terms
from jaxmu import hparams as hp
from jaxmu import precision as precision_lib
from jaxmu.api import inputs, populations
from jaxmu.api import setup as setup_lib
from jaxmu.api.members import MemberHparams, expand
from jaxmu.api.populations import Models, Predictions, score
from jaxmu.api.setup import Setup
from jaxmu.method import Method
from jaxmu.models import checkpoints
from jaxmu.report import progress as progress_lib
from jaxmu.study import execution, originals, stages
from jaxmu.study import job as job_lib
from jaxmu.study.job import Members
from jaxmu.types import Variables


def train(
  data: Any,
  design: Any = None,
  *,
  model: Any = 'resnet18',
  seeds: int = 1,
  seed: int = 0,
  seed_mode: str = 'independent',
  precision: str = precision_lib.DEFAULT,
  model_options: Mapping[str, Any] | None = None,
  every_value: bool = False,
  progress: bool | None = None,
  **options: Any,
) -> Models:
  """Train original models: `seeds` for each training set of the design.

  Args:
    data: what `load_data` returns or takes.
    design: what `split` returns; default `split(data)`.
    model: name in `jaxmu.MODELS`; import path or file of a model
      (`my_net.py:Net`); or a `flax.linen.Module` that maps images
      float[B, H, W, 3] to logits float[B, C].
    seeds: initialisations for each training set, at least 1.
    seed: root of all random draws, 0 to 2^32 - 1.
    seed_mode: 'independent', or 'reference' to share draws between members as
      the benchmark does.
    precision: 'float32', 'tf32' or 'bfloat16'; see `jaxmu.precision`.
    model_options: options of the model.
    every_value: see `options`.
    progress: show progress on the terminal; by default if there is one.
    **options: hyper-parameters `learning_rate`, `momentum`, `weight_decay`,
      `num_epochs` and `batch_size`, and options of the model such as `width`.
      What is not given suits the data set: the benchmark's values, or those of
      the digits, with a smaller network, for at most 10,000 training images.
      A list as long as there are models gives each its own value; any other
      list trains all models with every value, as `every_value=True` always
      does.

  Returns:
    The models, P = seeds x training sets (x values).

  Raises:
    ValueError: an unknown name or a value out of range, before any training.

  Example:
    >>> import jaxmu
    >>> data = jaxmu.load_data('digits')
    >>> design = jaxmu.split(data, splits=2, pool=400)
    >>> original = jaxmu.train(
    ...   data, design, model='tiny', num_epochs=2, learning_rate=[0.01, 0.1])
    >>> len(original), original.losses.shape
    (2, (2, 2))
    >>> original.variables['params']['fc']['kernel'].shape
    (2, 12, 10)
  """
  setup, hparams = _new_setup(
    data,
    design,
    model,
    {**(model_options or {}), **options},
    seeds=seeds,
    seed=seed,
    seed_mode=seed_mode,
    precision=precision,
  )
  method = methods.get('original')
  members = job_lib.members_per_split(setup.design, setup.seeds)
  suited, _ = setup_lib.training_defaults(setup.data, setup.model_name)
  chosen = expand(
    method.Hparams, suited, hparams, members.size, every_value=every_value
  )
  members = stages.select_members(members, chosen.base)
  start = _fresh(setup, members)
  return _fit('original', method, setup, members, chosen, start, progress)


def retrain(
  original: Models, *, progress: bool | None = None, **hparams: Any
) -> Models:
  """Train models without their forget sets, the reference for unlearning.

  They have the initial weights and the hyper-parameters of the originals.

  Args:
    original: what `train` returned, or originals that `load` read.
    progress: show progress on the terminal; by default if there is one.
    **hparams: hyper-parameters to change; see `train`.

  Returns:
    The models, P = seeds x forget sets of the design (x values of the
    originals).

  Raises:
    ValueError: `original` is not a population of originals, or a
      hyper-parameter is wrong.

  Example:
    >>> import jaxmu
    >>> data = jaxmu.load_data('digits')
    >>> design = jaxmu.split(data, splits=2, pool=400)
    >>> original = jaxmu.train(data, design, model='tiny', num_epochs=2)
    >>> len(jaxmu.retrain(original))
    2
  """
  _check_originals(original)
  setup, method = original.setup, methods.get('retrain')
  members, source = per_forget_set(original)
  suited, _ = setup_lib.training_defaults(setup.data, setup.model_name)
  inherited = [{**suited, **original.hparams[k]} for k in source]
  for name, value in hparams.items():
    if np.ndim(value):
      raise ValueError(
        f'{name} = {value!r}; give one value, or train the originals with '
        f'several: train(..., {name}=[...])'
      )
  expand(method.Hparams, {}, hparams, 1)
  variant = [original.variant[k] for k in source]
  chosen = MemberHparams(
    [{**h, **hparams} for h in inherited], np.arange(len(source)), variant
  )
  start = _fresh(setup, members)
  trained = _fit('retrain', method, setup, members, chosen, start, progress)
  return dataclasses.replace(trained, original=original, source=source)


def unlearn(
  method: Any,
  original: Any,
  *,
  data: Any = None,
  forget: Any = None,
  model: Any = 'resnet18',
  model_options: Mapping[str, Any] | None = None,
  val: Any = None,
  seed: int = 0,
  every_value: bool = False,
  progress: bool | None = None,
  **hparams: Any,
) -> Models:
  """Unlearn the forget sets of trained models.

  Args:
    method: name in `jaxmu.METHODS`; import path or file of a method
      (`my_method.py`); a module that defines `METHOD`, or a `Method`.
    original: originals from `train` or `load`; or one trained model, as the
      path of a checkpoint or as `{'params', 'batch_stats'}`, with `data` and
      `forget`.
    data: the data set of one trained model, as for `load_data`.
    forget: what to forget, as for `split`: indices int[F] or, for
      example, 'class:3'.
    model: architecture of one trained model, as for `train`.
    model_options: its options, such as {'width': 16}.
    val: examples it was not trained on, as for `split`.
    seed: root of the random draws for one trained model.
    every_value: see `hparams`.
    progress: show progress on the terminal; by default if there is one.
    **hparams: hyper-parameters of the method. What is not given is the
      reference's default or, for at most 10,000 training images, suits the
      digits. A list as long as there are models gives each its own value; any
      other list unlearns all models with every value, as `every_value=True`
      always does. All values of a real-valued hyper-parameter run in one
      compiled program; each value of a batch size or an option compiles
      another.

  Returns:
    The models, P = seeds x forget sets of the design (x values).

  Raises:
    ValueError: an unknown name, a value out of range, or a method that does
      not work on this model or design, before any training.

  Example:
    >>> import jaxmu
    >>> data = jaxmu.load_data('digits')
    >>> design = jaxmu.split(data, splits=2, pool=400)
    >>> original = jaxmu.train(data, design, model='tiny', num_epochs=2)
    >>> tried = jaxmu.unlearn(
    ...   'ga', original, learning_rate=[1e-3, 1e-2, 1e-1], num_epochs=1)
    >>> len(tried), tried.variants[0]
    (6, 'learning_rate=0.001')
    >>> one = jaxmu.unlearn(
    ...   'ga', original.model(0), data=data, forget=[3, 14], model='tiny',
    ...   num_epochs=1)
    >>> one.model(0)['params']['fc']['bias'].shape
    (10,)
  """
  if not isinstance(original, Models):
    original = _single_model(
      original, data, forget, model, model_options or {}, val, seed
    )
  elif data is not None or forget is not None or val is not None:
    raise ValueError(
      'data, forget and val belong to one trained model; originals from train '
      'have theirs, so leave them out'
    )
  return _unlearn(method, original, hparams, every_value, progress)


def _unlearn(
  spec: Any,
  original: Models,
  hparams: Mapping[str, Any],
  every_value: bool,
  progress: bool | None,
) -> Models:
  _check_originals(original)
  method = methods.get(spec)
  if method.name in methods.BASELINES:
    raise ValueError(
      f'method = {method.name!r} is not an unlearning method; call jaxmu.train '
      'for originals and jaxmu.retrain for the reference'
    )
  setup = original.setup
  members, source = per_forget_set(original)
  suited = setup_lib.method_defaults(method, setup.data)
  chosen = expand(
    method.Hparams, suited, hparams, members.size, every_value=every_value
  )
  members, source = (
    stages.select_members(members, chosen.base),
    source[chosen.base],
  )
  variant = [
    ' '.join(filter(None, [original.variant[k], own]))
    for k, own in zip(source, chosen.variant, strict=True)
  ]
  chosen = chosen._replace(variant=variant)
  start = jax.tree.map(lambda x: x[source], original.variables)
  with methods.naming(method):
    trained = _fit(method.name, method, setup, members, chosen, start, progress)
  return dataclasses.replace(trained, original=original, source=source)


def predict(models: Models, images: Any = None) -> Predictions:
  """Score images with every model.

  Args:
    models: P models.
    images: what to score: None for all of the data set that the models belong
      to, training part first; uint8[N, H, W, 1 or 3]; or (images, labels), a
      name, a folder or data, as for `load_data`, of which all is scored.

  Returns:
    Log-odds f32[P, N], whether answers are correct bool[P, N], and logits and
    probabilities f32[P, N, C].

  Raises:
    ValueError: images or labels are not of this form, or of another size than
      the model's input.

  Example:
    >>> import jaxmu
    >>> data = jaxmu.load_data('digits')
    >>> design = jaxmu.split(data, splits=2, pool=400)
    >>> original = jaxmu.train(data, design, model='tiny', num_epochs=2)
    >>> predictions = jaxmu.predict(original, data.image[:5])
    >>> predictions.probabilities.shape
    (2, 5, 10)
    >>> jaxmu.predict(original).log_odds.shape
    (2, 1797)
  """
  if images is None:
    return Predictions(models, None, True, models.scores)
  data, labelled = _images(models.setup, images)
  return Predictions(models, data, labelled, score(models, data))


def load(
  path: Any,
  *,
  data: Any = None,
  design: Any = None,
  model: Any = None,
  model_options: Mapping[str, Any] | None = None,
  seed: int = 0,
  precision: str = precision_lib.DEFAULT,
) -> Any:
  """Read models: saved ones, those of a job, or checkpoints as originals.

  Args:
    path: a folder that `Models.save` wrote; the work directory of a job; or
      checkpoints: one file, a pattern such as 'seed*.pth', or a list of files
      in the order seeds, then splits.
    data: the data set, as for `load_data`; needed for checkpoints, and for
      saved models whose data set has moved.
    design: what `split` returned; needed for checkpoints.
    model: the architecture; needed for checkpoints, and for saved models whose
      network was given as an object.
    model_options: options of the model of checkpoints, such as {'width': 16}.
    seed: root of all random draws that start from checkpoints.
    precision: of what starts from checkpoints, see `jaxmu.precision`.

  Returns:
    Models; or a `JobResult` for a work directory.

  Raises:
    ValueError: there is nothing of this kind, it is damaged, or it does not fit
      data, design and model.

  Example:
    >>> import jaxmu, tempfile
    >>> data = jaxmu.load_data('digits')
    >>> design = jaxmu.split(data, splits=2, pool=400)
    >>> original = jaxmu.train(data, design, model='tiny', num_epochs=2)
    >>> folder = original.save(tempfile.mkdtemp() + '/original')
    >>> len(jaxmu.load(folder))
    2
  """
  from jaxmu.api import jobs

  if isinstance(path, str | os.PathLike):
    folder = files.workdir(path)
    files.refresh(folder)
    if folder.is_dir() and populations.is_saved(folder):
      return populations.read(folder, data=data, model=model)
    if folder.is_dir() and jobs.is_workdir(folder):
      return jobs.JobResult(folder)
  paths = _files(path)
  _check_given(paths[0], data=data, design=design, model=model)
  design = inputs.as_design(design)
  splits = len(np.unique(design.split))
  if len(paths) % splits:
    raise ValueError(
      f'{terms.count(len(paths), "checkpoint")} for '
      f'{terms.count(splits, "training set")}; give one per seed and training '
      'set, all of seed 0 first'
    )
  setup = _setup(
    inputs.load_data(data),
    design,
    model,
    model_options or {},
    seeds=len(paths) // splits,
    seed=seed,
    precision=precision,
  )
  return _untrained(setup, _read_checkpoints(setup.model, paths))


def _check_given(path: pathlib.Path, **given: Any) -> None:
  """Check that all is given that checkpoints lack."""
  missing = [name for name, value in given.items() if value is None]
  if missing:
    what = 'holds weights alone'
    if path.is_dir():
      what = 'holds no record.json of saved models and no finished job'
    raise ValueError(
      f'{path} {what}; to read a checkpoint, give data, design and model '
      f'({" and ".join(missing)} missing)'
    )


def _files(path: Any) -> list[pathlib.Path]:
  entries = [path] if isinstance(path, str | os.PathLike) else list(path)
  if not entries:
    raise ValueError('no files; give at least one checkpoint')
  paths = [
    one for e in entries for one in originals.expand(str(e), field='path')
  ]
  for one in paths:
    if not one.exists():
      raise ValueError(
        f'no file or folder {str(one)!r} (looked in {pathlib.Path.cwd()})'
      )
  return paths


def _read_checkpoints(model: Any, paths: Sequence[pathlib.Path]) -> Variables:
  """Read one model per file; leaves [P, ...] on the host."""
  try:
    read = checkpoints.read_population(model, list(paths))
  except FileNotFoundError as error:
    raise ValueError(str(error)) from error
  return jax.tree.map(np.asarray, read)


def _untrained(setup: Setup, variables: Variables) -> Models:
  """Return originals that were trained elsewhere."""
  members = job_lib.members_per_split(setup.design, setup.seeds)
  return Models(
    name='original',
    method=None,
    setup=setup,
    members=members,
    hparams=[{} for _ in range(members.size)],
    variant=[''] * members.size,
    variables=variables,
    infos={},
    failed=np.full(members.size, -1),
  )


def _single_model(
  source: Any,
  data: Any,
  forget: Any,
  model: Any,
  options: Mapping[str, Any],
  val: Any,
  seed: int,
) -> Models:
  """Return one trained model as a population of one original."""
  if data is None or forget is None:
    raise ValueError(
      'one trained model needs data= (its data set) and forget= (indices of '
      'the examples to forget)'
    )
  data = inputs.load_data(data)
  design = inputs.split(data, forget=forget, val=val, splits=1)
  setup = _setup(data, design, model, options, seed=seed)
  if isinstance(source, str | os.PathLike):
    return _untrained(
      setup, _read_checkpoints(setup.model, [files.path(source)])
    )
  variables = _given(setup, source)
  return _untrained(setup, jax.tree.map(lambda x: x[None], variables))


def _given(setup: Setup, variables: Any) -> Variables:
  """Check variables that a user gave."""
  if not isinstance(variables, Mapping) or 'params' not in variables:
    raise ValueError(
      f'original is a {type(variables).__name__}; give models from train or '
      "load, the path of a checkpoint, or {'params': ..., 'batch_stats': ...}"
    )
  given = {'batch_stats': {}, **variables}
  given = {k: jax.tree.map(np.asarray, given[k]) for k in sorted(given)}
  expected = jax.eval_shape(
    lambda key: models.init(setup.model, key, setup.image_shape),
    jax.random.key(0),
  )
  given_shapes, wanted = (
    {jax.tree_util.keystr(k): v.shape for k, v in leaves}
    for leaves in map(jax.tree_util.tree_leaves_with_path, (given, expected))
  )
  wrong = [
    k
    for k in {**wanted, **given_shapes}
    if given_shapes.get(k) != wanted.get(k)
  ]
  if wrong:
    name = wrong[-1]  # the parameters come last
    raise ValueError(
      f'the variables do not fit {setup.describe()}: {name} has shape '
      f'{given_shapes.get(name, "none")}, expected '
      f'{wanted.get(name, "none")}; give '
      'model and model_options of these weights'
    )
  return given


def _new_setup(
  data: Any, design: Any, model: Any, options: dict[str, Any], **rest: Any
) -> tuple[Setup, dict[str, Any]]:
  """Divide options between the training and the model, and build the model."""
  data = inputs.load_data(data)
  design = inputs.split(data) if design is None else inputs.as_design(design)
  cls = methods.get('original').Hparams
  names = [field.name for field in hp.declared(cls)]
  hparams = {k: v for k, v in options.items() if k in names}
  others = {k: v for k, v in options.items() if k not in names}
  try:
    setup = _setup(data, design, model, others, **rest)
  except ValueError as error:
    unknown = [k for k in others if f'{k!r}' in str(error)]
    if not unknown:
      raise
    close = terms.choices(unknown[0], names)
    raise ValueError(
      f'{error}; if {unknown[0]!r} is a hyper-parameter, {close}'
    ) from error
  return setup, hparams


def _setup(
  data: inputs.Data,
  design: inputs.Design,
  model: Any,
  options: Mapping[str, Any],
  *,
  seeds: int = 1,
  seed: int = 0,
  seed_mode: str = 'independent',
  precision: str = precision_lib.DEFAULT,
) -> Setup:
  name = model if isinstance(model, str) else ''
  if seed_mode not in setup_lib.SEED_MODES:
    raise ValueError(
      f'seed_mode = {seed_mode!r}; choose one of {list(setup_lib.SEED_MODES)}'
    )
  seed = hp.check_whole('seed', seed)
  most = max(hp.MOST_MEMBERS // max(len(design.split), 1), 1)
  seeds = hp.check_whole('seeds', seeds, least=1, most=most)
  platforms.check_devices()
  # Fails here where the design belongs to another data set.
  inputs.splits_lib.membership(design, len(data.label))
  _, suited = setup_lib.training_defaults(data, name)
  options = {**suited, **options}
  return Setup(
    data=data,
    design=design,
    model=setup_lib.build_model(model, data, options, precision),
    model_name=name,
    model_options=options,
    precision=precision,
    seed=seed,
    seeds=seeds,
    seed_mode=seed_mode,
  )


def _check_originals(original: Any) -> None:
  if not isinstance(original, Models) or original.name != 'original':
    what = getattr(original, 'name', type(original).__name__)
    raise ValueError(
      f'original = {what!r}; give the models that jaxmu.train or jaxmu.load '
      'returned'
    )


def per_forget_set(original: Models) -> tuple[Members, np.ndarray]:
  """Return one member per seed, forget set and variant, and their originals."""
  setup = original.setup
  base = job_lib.members_per_forget_set(setup.design, setup.seeds)
  members, sources = [], []
  for variant in original.variants:
    position = {
      (seed, split): k
      for k, (seed, split, _) in enumerate(original.members.names)
      if original.variant[k] == variant
    }
    for p, (seed, split, _) in enumerate(base.names):
      if (seed, split) in position:  # all, unless some were selected
        members.append(p)
        sources.append(position[seed, split])
  return stages.select_members(base, np.array(members)), np.array(sources)


def _fresh(setup: Setup, members: Members) -> Variables:
  keys = job_lib.weight_keys(setup.root, members, setup.shared_draws)
  return population.initial_variables(setup.task(), keys)


def _fit(
  name: str,
  method: Method,
  setup: Setup,
  members: Members,
  chosen: MemberHparams,
  start: Variables,
  progress: bool | None,
) -> Models:
  """Train a population in slices, grouped by static hyper-parameters."""
  hparams = [hp.from_config(method.Hparams, h) for h in chosen.hparams]
  keys = job_lib.draw_keys(setup.root, name, members, setup.shared_draws)
  splits = job_lib.index_sets(setup.design, members)
  parts: list[tuple[np.ndarray, population.Trained]] = []
  slices = [
    np.array(group)[part]
    for group in hp.group_by_static(hparams).values()
    for part in setup_lib.slices(len(group))
  ]
  trainer = setup.trainer(method, max(map(len, slices)))
  with (
    _show(progress) as bars,
    bars.stage(f'train {name}', members.size, unit='models') as stage,
  ):
    for index in slices:
      arguments = (
        [hparams[p] for p in index],
        keys[index],
        jax.tree.map(lambda x, i=index: x[i], splits),
        jax.tree.map(lambda x, i=index: x[i], start),
      )
      trained = execution.retry_smaller(
        functools.partial(trainer.run, *arguments), trainer
      )
      host = jax.tree.map(np.asarray, trained.variables)
      parts.append((index, trained._replace(variables=host)))
      stage.advance(len(index))
  order = np.argsort(np.concatenate([index for index, _ in parts]))
  trained = [part for _, part in parts]
  return Models(
    name=name,
    method=method,
    setup=setup,
    members=members,
    hparams=chosen.hparams,
    variant=chosen.variant,
    variables=jax.tree.map(
      lambda *leaves: np.concatenate(leaves)[order],
      *(part.variables for part in trained),
    ),
    infos=_join_infos(trained, order),
    failed=np.concatenate([part.failed for part in trained])[order],
  )


def _join_infos(
  parts: Sequence[population.Trained], order: np.ndarray
) -> dict[str, np.ndarray]:
  """Join reports f64[P, E]; NaN where a slice lacks a report or an epoch."""
  names = dict.fromkeys(name for part in parts for name in part.infos)
  epochs = max(part.losses.shape[1] for part in parts)
  joined = {}
  for name in names:
    rows = []
    for part in parts:
      size = len(part.failed)
      values = part.infos.get(name, np.full((size, 0), np.nan))
      more = np.full((size, epochs - values.shape[1]), np.nan)
      rows.append(np.concatenate([values, more], axis=1))
    joined[name] = np.concatenate(rows)[order]
  return joined


@contextlib.contextmanager
def _show(progress: bool | None) -> Iterator[progress_lib.Progress]:
  """Show progress on standard error, or nowhere."""
  if progress is None:
    progress = sys.stderr.isatty() or 'ipykernel' in sys.modules
  stream = sys.stderr if progress else io.StringIO()
  with progress_lib.Progress(stream) as bars:
    yield bars


def _images(setup: Setup, images: Any) -> tuple[inputs.Data, bool]:
  """Return images as data, and whether their labels are known."""
  size = setup.image_shape[0]
  if isinstance(images, inputs.datasets.Source):
    data, labelled = inputs.load_data(images), True
  elif isinstance(images, str | os.PathLike):
    data, labelled = inputs.load_data(images, image_size=size), True
  else:
    labelled = isinstance(images, tuple | list)
    if not labelled:
      images = (images, np.zeros(len(images), np.int32))
    data = inputs.unsplit(
      *images, size=size, num_classes=setup.data.num_classes
    )
  if data.image.shape[1:] != setup.data.image.shape[1:]:
    raise ValueError(
      f'the images have shape {data.image.shape[1:]}, the model takes '
      f'{setup.data.image.shape[1:]}; give images of this size'
    )
  return data, labelled
