"""The settings of a job: names, types and ranges, checked before anything runs.

`from_config` turns a configuration into these classes, which the rest of the
project uses. A field that a result depends on is part of the address of the
result, see `jaxmu.study.job`.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any

from flax import struct

from jaxmu import hparams as hp
from jaxmu import methods, metrics, models, precision, terms
from jaxmu.attacks import leave_out, registry
from jaxmu.data import catalog, splits
from jaxmu.study import execution, tuned
from jaxmu.types import AUGMENTATIONS

_SHARE = hp.Interval(0.0, 1.0, low_open=True, high_open=True)
_SEED = hp.Interval(0, hp.MOST_SEED)
_MANY = hp.Interval(1, hp.MOST_MEMBERS)


@struct.dataclass
class Data:
  """The data set.

  Attributes:
    name: name of the set.
    folder: folder of prepared sets; '' for the default ones.
    augment: random changes of training images: 'none', 'flip' (mirror), 'crop'
      (shift by up to 4 pixels) or 'flip+crop'; '' for those of the data set.
  """

  name: str = hp.static('digits')
  folder: str = hp.static('')
  augment: str = hp.static('', valid=AUGMENTATIONS)


@dataclasses.dataclass(frozen=True)
class Originals:
  """Where the original models come from.

  Attributes:
    checkpoints: files to read instead of training: paths, or patterns such as
      `seed*.pth` or `runs/{seed}_{split}.safetensors`; see
      `jaxmu.study.originals`. Empty to train them.
  """

  checkpoints: tuple[str, ...] = ()


@struct.dataclass
class Retrained:
  """The reference that unlearned models are compared with.

  Attributes:
    train: train retrained models. Without them a report leaves out the numbers
      that need them.
  """

  train: bool = hp.static(True)


@struct.dataclass
class Splits:
  """How the development data is divided.

  Attributes:
    design: 'audit' (complementary pairs of splits, forget sets by partition),
      'reference' (the benchmark's U-LiRA splits) or 'main' (its single split).
    num_splits: training sets, each half of the pool; even for 'audit'.
    forget_sets: forget sets per split.
    forget_fraction: share of a training set in one forget set.
    pool: examples to divide; 0 for all of design 'main', and for all but 5%
      validation of the others. Design 'reference' takes 0 alone.
    seeds: initialisations per split.
    forget: which examples of design 'main' to forget: 'random', 'class:3,5',
      'file:PATH', 'most:SCORES' or 'least:SCORES'; see docs/data.md.
    seed: seed of the random splits of 'audit'.
  """

  design: str = hp.static('audit', valid=('audit', 'reference', 'main'))
  num_splits: int = hp.static(16, valid=hp.FEW)
  forget_sets: int = hp.static(2, valid=hp.FEW)
  forget_fraction: float = hp.static(0.1, valid=_SHARE)
  pool: int = hp.static(0, valid=hp.COUNT)
  seeds: int = hp.static(1, valid=hp.FEW)
  forget: str = hp.static('random')
  seed: int = hp.static(0, valid=_SEED)


@struct.dataclass
class Attack:
  """How the models are attacked; changing this retrains nothing.

  Attributes:
    which: names of attacks, separated by commas; '' for the default ones.
    variance: how U-LiRA estimates variances.
    mode: what U-LiRA leaves out of its fit when it scores a model.
    leave_out: 'pair' or 'split', for mode 'logo'; see docs/attacks.md.
    location: 'mean' or 'median'.
  """

  which: str = hp.static('')
  variance: str = hp.static('shrink', valid=leave_out.VARIANCES)
  mode: str = hp.static('logo', valid=leave_out.MODES)
  leave_out: str = hp.static('pair', valid=('pair', 'split'))
  location: str = hp.static('mean', valid=('mean', 'median'))

  @property
  def names(self) -> tuple[str, ...]:
    """The entries of `which`; none for the default attacks."""
    return tuple(filter(None, map(str.strip, self.which.split(','))))


@struct.dataclass
class Curve:
  """Accuracy while originals and retrained models are trained.

  Changing this retrains nothing: existing models stay without a curve.

  Attributes:
    every: epochs between two scorings; 0 for no curves.
  """

  every: int = hp.static(0, valid=hp.COUNT)


@struct.dataclass
class Timing:
  """How run time is measured: single member, median of `repeats` warm runs."""

  repeats: int = hp.static(3, valid=hp.FEW)


@struct.dataclass
class Search:
  """The search for hyper-parameters, see `jaxmu.tuning`; jobs ignore it.

  Attributes:
    trials: settings tried per initialisation.
    initialisations: pairs of an original and a retrained model, each with a
      separate study.
    sampler: 'tpe', 'random' or 'reference' (NSGA-III as in the benchmark).
    objective: 'reference' compares with retrained models; 'no_oracle' needs
      none.
    generation: trials proposed at once; 0 for 50 with 'reference', else 25.
    finalists: the best trials, in equal numbers from all initialisations, which
      are judged again.
    judges: further initialisations to judge them on. 0 selects as the
      benchmark does: the best value of any trial.
    seed: of the samplers.
    training: search the recipe of the original models instead of the methods.
  """

  trials: int = hp.static(100, valid=hp.FEW)
  initialisations: int = hp.static(3, valid=hp.FEW)
  sampler: str = hp.static('tpe', valid=('tpe', 'random', 'reference'))
  objective: str = hp.static('reference', valid=('reference', 'no_oracle'))
  generation: int = hp.static(0, valid=hp.COUNT)
  finalists: int = hp.static(20, valid=hp.FEW)
  judges: int = hp.static(5, valid=hp.COUNT)
  seed: int = hp.static(0, valid=_SEED)
  training: bool = hp.static(False)


@struct.dataclass
class Run:
  """How the job uses the machine; no field changes a draw.

  Attributes:
    devices: devices to share the members; 0 to let the plan choose (on a CPU
      there is one per core).
    chunk: members vmapped together on a device; 0 to let the plan choose; see
      `jaxmu.study.planner`.
    memory: GB that each accelerator, or the machine where devices are its
      cores, may hold; 0 for 90% of what there is.
    shard: members trained and saved together, the unit of resuming.
    verify: compare checksums of finished shards, not only sizes.
    share: take finished work from the jobs in the folders beside the work
      directory; see `jaxmu.study.sharing`.
    cache_teacher: keep the outputs of teacher models, where a method has one,
      instead of computing them in every epoch. The results are the same; it
      costs memory and saves time.
  """

  devices: int = hp.static(0, valid=hp.Interval(0, execution.MOST_DEVICES))
  chunk: int = hp.static(0, valid=hp.Interval(0, 10_000))
  memory: float = hp.static(0.0, valid=hp.NON_NEGATIVE)
  shard: int = hp.static(8, valid=_MANY)
  verify: bool = hp.static(True)
  share: bool = hp.static(True)
  cache_teacher: bool = hp.static(True)


@dataclasses.dataclass(frozen=True)
class Unlearner:
  """An unlearning method with its hyper-parameters as plain numbers.

  Attributes:
    method: the name of a method or plug-in; see `jaxmu.plugins`.
    hparams: all hyper-parameters.
  """

  method: str
  hparams: Mapping[str, Any]


@dataclasses.dataclass(frozen=True)
class Settings:
  """Everything that defines a job.

  Attributes:
    seed: root of all draws.
    seed_mode: 'independent' gives every member its own initial weights, data
      order and noise. 'reference' shares the draws between members and the
      weights between splits, as the benchmark does; it understates spread.
    model: name of the architecture.
    model_options: its options.
    precision: of the products of the network, see `jaxmu.precision`. It changes
      results, so it is never chosen automatically.
    train: hyper-parameters of the original and the retrained models.
    unlearners: the methods to compare.
    metrics: further metrics, by name or as plug-ins.
    search: how hyper-parameters are searched.
    search_space: spaces that replace those of the method.
    search_grid: values to try in all combinations instead of sampling; of
      `search_space` only values that are held fixed apply then.
  """

  workdir: str
  seed: int
  seed_mode: str
  data: Data
  splits: Splits
  originals: Originals
  retrained: Retrained
  model: str
  model_options: Mapping[str, Any]
  precision: str
  train: Mapping[str, Any]
  unlearners: tuple[Unlearner, ...]
  attack: Attack
  curve: Curve
  timing: Timing
  run: Run
  metrics: tuple[str, ...] = ()
  search: Search = Search()
  search_space: Mapping[str, Any] = dataclasses.field(default_factory=dict)
  search_grid: Mapping[str, Any] = dataclasses.field(default_factory=dict)

  @property
  def all_model_options(self) -> dict[str, Any]:
    """The options of the model, with those that the precision implies."""
    implied = precision.model_options(self.precision)
    return {**self.model_options, **implied}


def from_config(config: Mapping[str, Any]) -> Settings:
  """Check a configuration and turn it into settings.

  Args:
    config: nested plain mapping with the fields that
      `jaxmu.study.recipes.job_config` returns.

  Raises:
    ValueError: an unknown name, a value of the wrong type or out of range; the
      message names the field, the value and the remedy.
  """
  _check_fields(
    config,
    'config',
    _NEEDED,
    (*SECTIONS, 'originals', 'compare', 'metrics', 'search'),
  )
  for name in config:
    if (
      name not in (*_PLAIN, 'metrics')
      and not isinstance(config[name], Mapping)
      and not (name == 'train' and tuned.is_name(config[name]))
    ):
      raise ValueError(
        f'config.{name} = {config[name]!r}; give a section with fields, see '
        'jaxmu/study/recipes.py'
      )
  _check_fields(
    config['model'], 'config.model', ('name',), ('options', 'precision')
  )
  _check_fields(config['unlearn'], 'config.unlearn', ('method', 'hparams'))
  sections = {
    name: hp.from_config(cls, config.get(name, {}), f'config.{name}.')
    for name, cls in SECTIONS.items()
  }
  train = _train(config)
  settings = Settings(
    workdir=str(config['workdir']),
    seed=hp.check_whole('config.seed', config['seed']),
    seed_mode=_choice(config, 'seed_mode', ('independent', 'reference')),
    originals=_originals(config.get('originals', {})),
    model=config['model']['name'],
    model_options=dict(config['model'].get('options', {})),
    precision=config['model'].get('precision', precision.DEFAULT),
    train=train,
    unlearners=_unlearners(config, train),
    metrics=tuple(config.get('metrics', ())),
    **_search(config.get('search', {})),
    **sections,
  )
  _check_names(settings)
  return settings


def config_of(saved: Mapping[str, Any]) -> dict[str, Any]:
  """Return the configuration of a job from the settings in its record."""
  first, *others = saved['unlearners']
  gathered = ('model', 'model_options', 'precision', 'unlearners')
  gathered += ('search_space', 'search_grid')
  return {
    **{name: value for name, value in saved.items() if name not in gathered},
    'model': {
      'name': saved['model'],
      'options': _tuples(saved['model_options']),
      'precision': saved['precision'],
    },
    'unlearn': {'method': first['method'], 'hparams': first['hparams']},
    'compare': {o['method']: o['hparams'] for o in others},
    'search': {
      **saved.get('search', {}),
      'space': saved.get('search_space', {}),
      'grid': saved.get('search_grid', {}),
    },
  }


def _tuples(options: Mapping[str, Any]) -> dict[str, Any]:
  """Return options of a model with tuples for the lists of JSON."""
  return {k: tuple(v) if isinstance(v, list) else v for k, v in options.items()}


# Sections without checks beyond those of their fields.
SECTIONS = {
  'data': Data,
  'splits': Splits,
  'retrained': Retrained,
  'attack': Attack,
  'curve': Curve,
  'timing': Timing,
  'run': Run,
}
_NEEDED = (
  *('workdir', 'seed', 'seed_mode', 'data', 'splits', 'model', 'train'),
  *('unlearn', 'attack', 'curve', 'timing', 'run'),
)
_PLAIN = ('workdir', 'seed', 'seed_mode')


def _check_fields(
  values: Mapping[str, Any],
  where: str,
  needed: tuple[str, ...],
  optional: tuple[str, ...] = (),
) -> None:
  known = sorted({*needed, *optional})
  if not isinstance(values, Mapping):
    raise ValueError(
      f'{where} = {values!r}; give a section with the fields {", ".join(known)}'
    )
  for name in values:
    if name == 'fidelity':
      raise ValueError(
        f'{where}.fidelity is unknown, because all hyper-parameters are given; '
        'select those of the cited papers with --config=NAME:SCALE,paper'
      )
    if name not in known:
      raise ValueError(
        f'{where}.{name} is unknown; {terms.nearest(name, known)}'
        f'choose from: {", ".join(known)}'
      )
  for name in needed:
    if name not in values:
      raise ValueError(
        f'{where}.{name} is missing; add it, as in what '
        'jaxmu.study.recipes.job_config returns'
      )


def _originals(values: Mapping[str, Any]) -> Originals:
  _check_fields(values, 'config.originals', (), ('checkpoints',))
  chosen = values.get('checkpoints', '')
  if isinstance(chosen, str):
    chosen = [part.strip() for part in chosen.split(',') if part.strip()]
  if not isinstance(chosen, list | tuple) or not all(
    isinstance(part, str) and part for part in chosen
  ):
    raise ValueError(
      f'config.originals.checkpoints = {chosen!r}; give a path or a pattern, '
      "several separated by commas, or '' to train the originals"
    )
  return Originals(tuple(chosen))


def _search(values: Mapping[str, Any]) -> dict[str, Any]:
  mappings = {name: values.get(name, {}) for name in ('space', 'grid')}
  for name, value in mappings.items():
    if not isinstance(value, Mapping):
      raise ValueError(
        f'config.search.{name} = {value!r}; give hyper-parameters by name, as '
        f'--config.search.{name}.learning_rate=...'
      )
  others = {k: v for k, v in values.items() if k not in mappings}
  return {
    'search': hp.from_config(Search, others, 'config.search.'),
    'search_space': _plain(mappings['space']),
    'search_grid': _plain(mappings['grid']),
  }


def _plain(value: Any) -> Any:
  """Return ranges, arrays and lists as tuples of plain values."""
  if isinstance(value, Mapping):
    return {name: _plain(one) for name, one in value.items()}
  if isinstance(value, range | list | tuple):
    return tuple(map(_plain, value))
  return _plain(value.tolist()) if hasattr(value, 'tolist') else value


def _train(config: Mapping[str, Any]) -> Mapping[str, Any]:
  values = config['train']
  if tuned.is_name(values):
    values = _tuned(config, 'original', values, 'config.train', {})
  cls = methods.get('original').Hparams
  hp.from_config(cls, values, 'config.train.')
  return {**hp.defaults(cls), **values}


def _unlearners(
  config: Mapping[str, Any], train: Mapping[str, Any]
) -> tuple[Unlearner, ...]:
  chosen = [(config['unlearn'], 'config.unlearn.')]
  for name, hparams in config.get('compare', {}).items():
    entry = {'method': name, 'hparams': hparams}
    chosen.append((entry, f'config.compare.{name}.'))
  unlearners: dict[str, Unlearner] = {}
  for entry, where in chosen:
    try:
      method = methods.get(entry['method'])
    except ValueError as error:
      raise ValueError(f'{where}method: {error}') from None
    name = method.name
    if name in methods.BASELINES:
      raise ValueError(
        f'{where}method = {name!r} is trained in every job anyway; choose an '
        'unlearning method'
      )
    if name in unlearners:
      first = unlearners[name].method
      remedy = 'list it once'
      if methods.get(first) is not method:
        remedy = f'{first!r} has this name too, so give it another name'
      raise ValueError(f'{where} repeats the method {name!r}; {remedy}')
    given = entry['hparams']
    if tuned.is_name(given):
      expected = {'train': train}
      given = _tuned(config, method, given, f'{where}hparams', expected)
    if not isinstance(given, Mapping):
      raise ValueError(
        f"{where}hparams = {given!r}; give names and values, 'tuned', or a "
        'settings file of python -m jaxmu.search'
      )
    hp.from_config(method.Hparams, given, f'{where}hparams.')
    hparams = {**hp.defaults(method.Hparams), **given}
    unlearners[name] = Unlearner(entry['method'], hparams)
  return tuple(unlearners.values())


def _tuned(
  config: Mapping[str, Any],
  method: Any,
  text: str,
  where: str,
  expected: Mapping[str, Mapping[str, Any]],
) -> Mapping[str, Any]:
  model = config['model']
  try:
    return tuned.find(
      text,
      method=method,
      data=str(config['data'].get('name')),
      model=str(model.get('name')),
      workdir=str(config['workdir']),
      expected={'model_options': model.get('options', {}), **expected},
    )
  except ValueError as error:
    raise ValueError(f'{where} = {text!r}: {error}') from None


def _choice(
  config: Mapping[str, Any], name: str, allowed: tuple[str, ...]
) -> str:
  if config[name] not in allowed:
    raise ValueError(
      f'config.{name} = {config[name]!r}; choose one of {list(allowed)}'
    )
  return config[name]


def _check_names(settings: Settings) -> None:
  _check_precision(settings)
  _check_plug_ins(settings)
  _check_model(settings)
  try:
    splits.check_forget_choice(settings.splits.forget)
  except ValueError as error:
    raise ValueError(f'config.splits.forget: {error}') from None
  _check_pool(settings.splits)
  _check_members(settings.splits)
  if settings.splits.forget != 'random' and settings.splits.design != 'main':
    raise ValueError(
      f'config.splits.forget = {settings.splits.forget!r} needs one split; '
      "set config.splits.design='main'"
    )
  if not settings.workdir:
    raise ValueError('config.workdir is empty; name a folder to write to')


def _check_pool(chosen: Splits) -> None:
  if chosen.design == 'reference' and chosen.pool:
    raise ValueError(
      f"config.splits.pool = {chosen.pool}: design 'reference' divides all of "
      "the development part; give --config.splits.pool=0, or design 'audit'"
    )


def _check_members(chosen: Splits) -> None:
  members = chosen.seeds
  if chosen.design != 'main':
    members *= chosen.num_splits * chosen.forget_sets
  if members > hp.MOST_MEMBERS:
    raise ValueError(
      f'config.splits asks for {members:,} models of each method (num_splits = '
      f'{chosen.num_splits}, forget_sets = {chosen.forget_sets}, seeds = '
      f'{chosen.seeds}); choose at most {hp.MOST_MEMBERS:,}'
    )


def _check_plug_ins(settings: Settings) -> None:
  """Load the attacks and metrics that are named, before anything runs."""
  try:
    attacks = registry.resolve_all(settings.attack.names)
  except ValueError as error:
    raise ValueError(f'config.attack.which: {error}') from None
  for attack in attacks:
    if {'logits', 'correctness'} & set(attack.card.needs):
      raise ValueError(
        f'config.attack.which: attack {attack.name!r} needs logits, and a job '
        'keeps log-odds; choose another'
      )
  try:
    metrics.choose(settings.metrics)
  except ValueError as error:
    raise ValueError(f'config.metrics: {error}') from None


def _check_model(settings: Settings) -> None:
  """Build the model, so that a wrong option fails before data are loaded."""
  entry = catalog.CATALOG.get(settings.data.name)
  try:
    if entry is None and settings.model not in models.MODELS:
      models.MODELS.resolve(settings.model)  # the size of images is not known
      return
    models.build(
      settings.model,
      num_classes=entry.num_classes if entry else 2,
      image_shape=(entry.size, entry.size, 3) if entry else None,
      options=settings.all_model_options,
    )
  except ValueError as error:
    raise ValueError(f'config.model: {error}') from None


def _check_precision(settings: Settings) -> None:
  try:
    precision.check(settings.precision)
  except ValueError as error:
    raise ValueError(f'config.model.{error}') from None
  if settings.precision != precision.DEFAULT and (
    'dtype' in settings.model_options
  ):
    raise ValueError(
      f'config.model.precision = {settings.precision!r} and '
      f'config.model.options.dtype = {settings.model_options["dtype"]!r} both '
      'set the precision; drop the option'
    )
