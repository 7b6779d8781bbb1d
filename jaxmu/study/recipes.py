"""The configuration of a job, from a method, a model and a scale.

`job_config` returns a nested dictionary with all fields of a job, which
`jaxmu.study.settings` checks. Every field can be changed afterwards.

A scale is a data set with the paper's recipe, or `digits`, the default, which
is small enough for a laptop and needs no download. The suffix `-ulira` selects
the study with 64 splits and 10 forget sets. With the suffix `,paper`, methods
follow their original papers where the benchmark's code departs from them (see
docs/methods.md): `cifar10`, `cifar10-ulira`, `cifar10,paper`.

Named configurations need no file: `msg_resnet`, `ct_tinyvit:cifar10`,
`benchmark`, `unlearn:my_method.py,resnet18,digits`.
"""

import pathlib
from collections.abc import Callable, Sequence
from typing import Any

from jaxmu import hparams as hp
from jaxmu import methods, models, precision, terms
from jaxmu.study import settings, tuned

# Epochs and batch size of the benchmark (arXiv 2410.01276), per data set.
_RECIPES = {
  'cifar10': (182, 256),
  'cifar100': (182, 256),
  'fashion_mnist': (50, 256),
  'mnist': (50, 256),
  'utkface': (50, 128),
}
_ULIRA_EPOCHS = 91
DATA = ('digits', *_RECIPES)

# Sizes of the networks at the digits scale.
_SMALL = {
  'resnet18': {'width': 8},
  'vit11m': {'widths': (32, 32, 64, 64), 'depths': (1, 1, 2, 1)},
}

# The methods of the paper, in the order of its job; others may be built in too.
PAPER_METHODS = (
  *('bt', 'cfk', 'cfw', 'ct', 'euk', 'fcs', 'ff', 'ft', 'ga', 'iu', 'kde'),
  *('msg', 'neggrad_plus', 'prmq', 'rni', 'salun', 'scrub', 'srl'),
)

# The models of the paper as they appear in the names of configurations.
_MODELS = {'resnet': 'resnet18', 'tinyvit': 'vit11m'}


def job_config(
  method: str,
  *,
  model: str = 'resnet18',
  scale: str = '',
  compare: Sequence[str] = (),
  name: str | None = None,
) -> dict[str, Any]:
  """Return all fields of a job.

  Args:
    method: the unlearning method, by name or as a plug-in (see
      `jaxmu.plugins`).
    model: the network, by name or as a plug-in.
    scale: see the module's docstring; '' for 'digits'.
    compare: further methods, which the report compares with `method`.
    name: of the job, the first part of the default work directory; None for
      the names of the methods and the model.

  Raises:
    ValueError: the method, model or scale is unknown; the message suggests the
      nearest names.

  Example:
    >>> config = job_config('msg', scale='cifar10')
    >>> config['workdir'], config['train']['num_epochs']
    ('workdir/msg_resnet_cifar10', 182)
  """
  _check_model(model)
  scale, fidelity = _scale_parts(scale)
  data, _, study = scale.partition('-')
  if name is None:
    titles = [methods.get(one).name for one in (method, *compare)]
    name = '_'.join([*titles, _short(model)])

  def chosen(spec: str) -> dict[str, Any]:
    return method_hparams(spec, data=data, fidelity=fidelity)

  config = _fields(f'workdir/{name}_{scale}', data, model)
  config['unlearn'] = {'method': method, 'hparams': chosen(method)}
  config['compare'] = {spec: chosen(spec) for spec in compare}
  if data == 'digits':
    _set_digits(config)
  else:
    _set_paper(config, data, study)
  return config


def method_hparams(
  method: str, *, data: str = 'digits', fidelity: str = 'reference'
) -> dict[str, Any]:
  """Return all hyper-parameters of a method on a data set.

  Args:
    method: by name or as a plug-in.
    data: name of the data set; for 'digits' the settings that a search chose
      for its small networks replace the defaults.
    fidelity: 'reference' or 'paper', see `jaxmu.methods.hparams_for`.

  Raises:
    ValueError: there is no such method.
  """
  values = methods.hparams_for(method, fidelity)
  if data != 'digits':
    return values
  chosen = methods.get(method)
  options = chosen.card.paper if fidelity == 'paper' else {}
  return {**values, **tuned.small_scale(chosen.name), **options}


def benchmark(scale: str = '') -> dict[str, Any]:
  """Return the job with all 18 methods: the table of arXiv 2410.01276."""
  others = [method for method in PAPER_METHODS if method != 'ft']
  config = job_config('ft', scale=scale, compare=others, name='benchmark')
  if config['data']['name'] == 'digits':
    config['splits'].update(
      design='main', seeds=6, num_splits=1, forget_sets=1, pool=0
    )
    config['run']['shard'] = 6
  return config


def unlearn(choice: str) -> dict[str, Any]:
  """Return the job of METHOD,MODEL,SCALE, in any order.

  Args:
    choice: a method and, if not the default, a model and a scale, separated by
      commas. Of two plug-ins the first is the method.

  Raises:
    ValueError: a name is unknown, or two of one kind are given.

  Example:
    >>> unlearn('vit11m,scrub')['workdir']
    'workdir/scrub_tinyvit_digits'
  """
  parts = [part.strip() for part in choice.split(',') if part.strip()]
  chosen: dict[str, str] = {}
  plug_ins = []
  for part in parts:
    if _is_plug_in(part):
      plug_ins.append(part)
    else:
      _choose(chosen, _kind(part), part)
  for plug_in in plug_ins:
    _choose(chosen, 'model' if 'method' in chosen else 'method', plug_in)
  if 'method' not in chosen:
    raise ValueError(
      f'unlearn:{choice} names no method; give one as METHOD,MODEL,SCALE, '
      'such as unlearn:ct,resnet18,digits'
    )
  suffix = ',paper' if 'suffix' in chosen else ''
  model = chosen.get('model', 'resnet18')
  return job_config(
    chosen['method'],
    model=_MODELS.get(model, model),
    scale=(chosen.get('scale', 'digits')) + suffix,
  )


def names() -> list[str]:
  """Return the names of all configurations that need no file."""
  unlearners = [m for m in methods.METHODS if m not in methods.BASELINES]
  pairs = [f'{m}_{short}' for m in unlearners for short in _MODELS]
  return ['benchmark', 'unlearn', *pairs]


def named(name: str) -> Callable[[str], dict[str, Any]] | None:
  """Return the function from a scale to the configuration of this name.

  Args:
    name: one of `names()`; the argument of 'unlearn' is METHOD,MODEL,SCALE.

  Returns:
    None if there is no configuration of this name.

  Example:
    >>> named('ct_tinyvit')('mnist')['model']['name']
    'vit11m'
  """
  if name in ('benchmark', 'unlearn'):
    return {'benchmark': benchmark, 'unlearn': unlearn}[name]
  if name not in names():
    return None
  method, _, short = name.rpartition('_')
  return lambda scale: job_config(method, model=_MODELS[short], scale=scale)


def change_method(
  config: dict[str, Any], method: str, fidelity: str = 'reference'
) -> None:
  """Replace the unlearning method, its hyper-parameters and the folder.

  Args:
    config: fields of a job; changed in place.
    method: by name or as a plug-in.
    fidelity: 'reference' or 'paper', see `jaxmu.methods.hparams_for`.

  Raises:
    ValueError: there is no such method.
  """
  old = methods.get(config['unlearn']['method']).name
  hparams = method_hparams(
    method, data=config['data']['name'], fidelity=fidelity
  )
  config['unlearn'] = {'method': method, 'hparams': hparams}
  _set_space(config)
  _rename(config, old, methods.get(method).name)


def add_method(
  config: dict[str, Any], method: str, fidelity: str = 'reference'
) -> None:
  """Add a method to compare, and its name to the folder's.

  Args:
    config: fields of a job; changed in place.
    method: by name or as a plug-in.
    fidelity: 'reference' or 'paper', see `jaxmu.methods.hparams_for`.

  Raises:
    ValueError: there is no such method, or the job has it already.
  """
  specs = [config['unlearn']['method'], *config['compare']]
  if method in specs:
    raise ValueError(f'the job has the method {method!r} already')
  config['compare'][method] = method_hparams(
    method, data=config['data']['name'], fidelity=fidelity
  )
  _set_space(config)
  last, new = methods.get(specs[-1]).name, methods.get(method).name
  _rename(config, last, f'{last}_{new}')


def change_model(config: dict[str, Any], model: str) -> None:
  """Replace the model, its options and the folder; see `change_method`."""
  _check_model(model)
  old = config['model']['name']
  small = config['data']['name'] == 'digits'
  options = dict(_SMALL.get(model, {})) if small else {}
  config['model'] = {**config['model'], 'name': model, 'options': options}
  _rename(config, _short(old), _short(model))


def change_data(config: dict[str, Any], data: str) -> None:
  """Replace the data set by a custom one, of any size; see `change_method`.

  The settings of training stay those of the scale.
  """
  old = config['data']['name']
  config['data']['name'] = data
  config['splits']['pool'] = 0
  _rename(config, old, data)


# Sections that take any field; it is checked where it is used.
_FREE = ('config.model.options', 'config.search.space', 'config.search.grid')


def locate(
  config: dict[str, Any], name: str, given: str = ''
) -> tuple[dict[str, Any], str]:
  """Find a field by its dotted name; keys may contain dots, as my_method.py.

  Args:
    config: fields of a job.
    name: such as 'train.num_epochs', or with 'config.' in front.
    given: what an error calls the field; its name if empty.

  Returns:
    The section and the key of the field. An option of the model, a searched
    hyper-parameter and a method to compare need not be there yet.

  Raises:
    ValueError: there is no such field; the message has the nearest one.
  """
  section, where = config, 'config'
  given, rest = given or name, name.removeprefix('config.')
  while True:
    keys = [k for k in section if rest == k or rest.startswith(f'{k}.')]
    if not keys and where in _FREE:
      first, dot, last = rest.partition('.')
      if not dot:
        return section, rest
      if '.' not in last and where.startswith('config.search.'):
        return section.setdefault(first, {}), last
    if not keys:
      raise ValueError(f'{given}: {_missing(config, section, where, rest)}')
    key = max(keys, key=len)
    if rest == key:
      return section, key
    where, rest = f'{where}.{key}', rest[len(key) + 1 :]
    if not isinstance(section[key], dict):
      raise ValueError(f'{given}: {where} is a value and has no fields')
    section = section[key]


def _missing(
  config: dict[str, Any], section: dict[str, Any], where: str, rest: str
) -> str:
  """Return a message with the fields of a section that lacks a field."""
  if where == 'config.compare':
    method = rest.rpartition('.')[0] or rest
    if method == config['unlearn']['method']:
      return (
        f'{method} is the method of the job itself; set '
        f'--config.unlearn.hparams.{rest[len(method) + 1 :]}'
      )
    near = ''
    if method not in methods.METHODS:
      near = terms.nearest(method, methods.METHODS)
    return (
      f'the job does not compare {method!r}; {near}add it with '
      f'--compare={method}'
    )
  name = rest.partition('.')[0]
  have = terms.choices(name, section)
  if where == 'config.unlearn.hparams':
    where = 'config.compare.' + config['unlearn']['method']
  if where.startswith('config.compare.'):
    method = where.removeprefix('config.compare.')
    return f'{method} has no hyper-parameter {name!r}; {have}'
  return f'{where} has no field {name!r}; {have}'


def _fields(workdir: str, data: str, model: str) -> dict[str, Any]:
  """Return the fields of a job with their defaults."""
  sections = {n: hp.defaults(cls) for n, cls in settings.SECTIONS.items()}
  return {
    'workdir': workdir,
    'seed': 0,
    'seed_mode': 'independent',
    **sections,
    'data': {**sections['data'], 'name': data},
    'model': {'name': model, 'options': {}, 'precision': precision.DEFAULT},
    'train': hp.defaults(methods.get('original').Hparams),
    'originals': {'checkpoints': ''},
    'unlearn': {'method': '', 'hparams': {}},
    'compare': {},
    'metrics': (),
    'search': {**hp.defaults(settings.Search), 'space': {}, 'grid': {}},
  }


def _set_digits(config: dict[str, Any]) -> None:
  config['splits']['pool'] = 1280
  config['train'].update(num_epochs=12, batch_size=64, learning_rate=0.05)
  _set_space(config)
  config['model']['options'] = dict(_SMALL.get(config['model']['name'], {}))


def digits_space(specs: Sequence[str]) -> dict[str, Any]:
  """Return the search spaces of methods at the digits scale.

  Batches have 64 images, the smallest of the benchmark's sizes, which make 18
  steps an epoch; a method compiles once. The cards of methods have the rest.

  Args:
    specs: methods by name or as plug-ins.

  Example:
    >>> digits_space(['ff', 'ft'])
    {'batch_size': 64, 'ff': {'alpha': 'log(1e-9, 1)'}}
  """
  chosen = [methods.get(spec) for spec in specs]
  space: dict[str, Any] = {
    field.name: 64
    for method in chosen
    for field in hp.declared(method.Hparams)
    if hp.meta(field)['search'] == hp.BATCH
  }
  return space | {
    method.name: dict(method.card.digits_space)
    for method in chosen
    if method.card.digits_space
  }


def _set_space(config: dict[str, Any]) -> None:
  if config['data']['name'] == 'digits':
    specs = [config['unlearn']['method'], *config['compare']]
    config['search']['space'] = digits_space(specs)


def _set_paper(config: dict[str, Any], data: str, study: str) -> None:
  epochs, batch_size = _RECIPES[data]
  splits = config['splits']
  if study:
    splits.update(num_splits=64, forget_sets=10)
    epochs = _ULIRA_EPOCHS
  else:
    splits.update(design='main', seeds=10, num_splits=1, forget_sets=1)
  config['train'].update(num_epochs=epochs, batch_size=batch_size)


def _scale_parts(scale: str) -> tuple[str, str]:
  """Divide a scale into its name and the fidelity of the methods."""
  name, comma, suffix = scale.partition(',')
  if comma and suffix != 'paper':
    raise ValueError(
      f"scale {scale!r} ends in {suffix!r}; the only suffix is ',paper'"
    )
  name = name or 'digits'
  if not _is_scale(name):
    raise ValueError(
      f'unknown scale {name!r}; {terms.nearest(name, DATA)}choose one of '
      f'{", ".join(DATA)}, or one of these with -ulira'
    )
  return name, suffix or 'reference'


def _is_scale(name: str) -> bool:
  return name.removesuffix('-ulira') in DATA


def _is_plug_in(spec: str) -> bool:
  return any(mark in spec for mark in './:')


def _kind(name: str) -> str:
  """Return the kind of a name in METHOD,MODEL,SCALE."""
  known = {
    'method': [*methods.METHODS, *methods.METHODS.installed()],
    'model': [*models.MODELS, *models.MODELS.installed(), *_MODELS],
    'scale': DATA,
    'suffix': ['paper'],
  }
  for kind, names_of_kind in known.items():
    if name in names_of_kind or (kind == 'scale' and _is_scale(name)):
      return kind
  everything = [one for values in known.values() for one in values]
  raise ValueError(
    f'unknown name {name!r} in METHOD,MODEL,SCALE; '
    f'{terms.nearest(name, everything)}methods: '
    f'{", ".join(known["method"])}; models: '
    f'{", ".join(known["model"])}; scales: {", ".join(DATA)}, each also with '
    '-ulira; or a plug-in such as my_method.py'
  )


def _choose(chosen: dict[str, str], kind: str, name: str) -> None:
  if kind in chosen:
    remedy = '; add the other with --compare' if kind == 'method' else ''
    raise ValueError(
      f'two {kind}s, {chosen[kind]!r} and {name!r}; name one{remedy}'
    )
  chosen[kind] = name


def _check_model(model: str) -> None:
  known = [*models.MODELS, *models.MODELS.installed()]
  if model not in known and not _is_plug_in(model):
    raise ValueError(
      f'unknown model {model!r}; '
      f'{terms.nearest(model, [*known, *_MODELS])}choose '
      f'one of {", ".join(known)}, or name a file such as my_net.py'
    )


def _short(model: str) -> str:
  """Return the short name of a model in names of jobs."""
  for short, name in _MODELS.items():
    if model == name:
      return short
  place, _, attribute = model.partition(':')
  if place.endswith('.py'):
    place = pathlib.PurePath(place).stem
  return attribute or place.rpartition('.')[2]


def _rename(config: dict[str, Any], old: str, new: str) -> None:
  """Change the name of the folder of a changed job."""
  folder = pathlib.PurePath(config['workdir'])
  name = f'_{folder.name}_'
  if f'_{old}_' in name:
    name = name.replace(f'_{old}_', f'_{new}_', 1)
  else:
    name += new
  config['workdir'] = str(folder.with_name(name.strip('_')))
