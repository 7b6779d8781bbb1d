"""Parse the arguments of a job into its configuration.

  --config=NAME:SCALE              a configuration of jaxmu.study.recipes
  --config=FILE.py:SCALE           a file with a function get_config(scale)
  --config.SECTION.FIELD=VALUE     change a field
  --workdir=DIR                    short for --config.workdir=DIR
  --compare=METHOD,METHOD          add methods, with their own settings

A changed method or model (--config.unlearn.method, --config.model.name) brings
its own settings and folder, and so does a data set of the user
(--config.data.name); all other arguments apply after that.
"""

import inspect
import pathlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from jaxmu import cli, files, plugins, terms
from jaxmu.study import recipes

# These never take the next word as a value.
_SWITCHES = ('plan', 'status', 'quick', 'delete', 'training')
FLAGS = ('config', 'workdir', 'compare', 'plan')
_NAMES = (('data', 'name'), ('model', 'name'), ('unlearn', 'method'))
_METHOD, _MODEL = 'config.unlearn.method', 'config.model.name'
_DATA = 'config.data.name'
_TRUE, _FALSE = ('true', '1', 'yes'), ('false', '0', 'no')


class Request(NamedTuple):
  """The content of a command line.

  Attributes:
    config: fields of the job as plain values, not checked yet.
    plan: whether to only print the plan.
    notes: lines for the user.
    machine: the value of --for, the machine of the plan; '' for this one.
    quick: whether the plan measures nothing.
    fields: dotted names of the fields that are set, 'config.seed'.
  """

  config: dict[str, Any]
  plan: bool
  notes: list[str]
  machine: str = ''
  quick: bool = False
  fields: tuple[str, ...] = ()


class Given(NamedTuple):
  """One argument, --name=text; text is None where no value was given."""

  name: str
  text: str | None

  def __str__(self) -> str:
    return f'--{self.name}' + ('' if self.text is None else f'={self.text}')

  def value(self) -> str:
    """Return the text.

    Raises:
      ValueError: there is none.
    """
    if not self.text:
      raise ValueError(f'--{self.name} needs a value, as --{self.name}=VALUE')
    return self.text

  def switch(self) -> bool:
    """Return whether a flag is on.

    Raises:
      ValueError: its value is neither true nor false.
    """
    return _boolean(self)


def read(argv: Sequence[str], more: Sequence[str] = ()) -> Request:
  """Parse the arguments of a command.

  Args:
    argv: arguments without the name of the program.
    more: flags of this command besides `FLAGS`.

  Raises:
    ValueError: a flag, configuration or field is unknown, or a value has the
      wrong type; the message names the argument and the remedy.
  """
  given, flags = list(split(argv)), (*FLAGS, *more)
  spec = ''
  for one in given:
    if one.name == 'config':
      if spec:
        raise ValueError(
          f'two configurations, {spec!r} and {one.value()!r}; give one, and '
          'flags as --name=VALUE'
        )
      spec = one.value()
    elif one.name not in flags and not one.name.startswith('config.'):
      raise ValueError(
        f'unknown flag --{one.name}; {_nearest_flag(one.name, flags)}choose '
        f'one of {", ".join(f"--{flag}" for flag in flags)}, or a field as '
        '--config.SECTION.FIELD=VALUE'
      )
  if not spec:
    raise ValueError(
      'no configuration; give one as --config=msg_resnet or '
      '--config=unlearn:METHOD,MODEL,SCALE (--help lists the names)'
    )
  config = load(spec)
  fidelity = 'paper' if spec.endswith(',paper') else 'reference'
  notes = _replace(config, given, fidelity)
  for one in given:
    if one.name == 'workdir':
      config['workdir'] = one.value()
    elif one.name.startswith('config.') and one.name not in (_METHOD, _MODEL):
      set_field(config, one.name, one.text)
  machines = [one.value() for one in given if one.name == 'for']
  plan, quick = (_is_on(given, name) for name in ('plan', 'quick'))
  if quick and not plan:
    raise ValueError('--quick describes a plan; add --plan')
  return Request(
    config=config,
    plan=plan,
    notes=notes,
    machine=machines[-1] if machines else '',
    quick=quick,
    fields=tuple(o.name for o in given if o.name.startswith('config.')),
  )


def _is_on(given: Sequence[Given], name: str) -> bool:
  flags = [one for one in given if one.name == name]
  return bool(flags) and flags[-1].switch()


def load(spec: str) -> dict[str, Any]:
  """Return the configuration of a name or file, with an argument after a colon.

  Raises:
    ValueError: there is no such configuration, or its `get_config` fails.

  Example:
    >>> load('ct_resnet:mnist')['train']['num_epochs']
    50
  """
  place, colon, argument = spec.partition(':')
  if place.endswith('.py'):
    path = files.path(place)
    # configs/NAME.py also works where the file does not exist.
    known = path.parent.name == 'configs' and recipes.named(path.stem)
    if path.is_file() or not known:
      given = (argument,) if colon else ()
      return _complete(from_file(place, given), place)
    return known(argument)
  function = recipes.named(place)
  if function is None:
    raise ValueError(
      f'no configuration {place!r}; {terms.nearest(place, recipes.names())}'
      'give METHOD_resnet or METHOD_tinyvit, benchmark, '
      'unlearn:METHOD,MODEL,SCALE, or a file that ends in .py'
    )
  return function(argument)


def set_field(
  config: dict[str, Any], flag: str, text: str | None, *, shown: str = ''
) -> None:
  """Set a field of a configuration from text, in the type of the field.

  Args:
    config: fields of a job; changed in place.
    flag: dotted name, 'config.train.num_epochs'.
    text: the value; None for a flag without one, which is true.
    shown: what an error calls the flag; its name if empty.

  Raises:
    ValueError: there is no such field, or the text has another type.
  """
  given = Given(shown or flag, text)
  section, key = recipes.locate(config, flag, str(given))
  searched = ('config.search.space.', 'config.search.grid.')
  if key in section and not flag.startswith(searched):
    section[key] = _convert(section[key], given, flag)
  else:  # an option of the model, or what to search
    section[key] = cli.literal(given.value())


def split(argv: Sequence[str]) -> Iterator[Given]:
  """Divide arguments into names and values, separated by '=' or a blank."""
  rest = list(argv)
  while rest:
    one = rest.pop(0)
    if not one.startswith('-'):
      yield Given('config', one)
      continue
    name, equals, text = one.lstrip('-').partition('=')
    if name.startswith(('noconfig.', 'noplan')) and not equals:
      yield Given(name.removeprefix('no'), 'false')
    elif equals:
      yield Given(name, text)
    elif rest and not rest[0].startswith('--') and name not in _SWITCHES:
      yield Given(name, rest.pop(0))
    else:
      yield Given(name, None)


def _nearest_flag(name: str, flags: Sequence[str]) -> str:
  section, dot, field = name.partition('.')
  if dot:  # a misspelt 'config', as in --cofnig.seed
    return f'did you mean --config.{field}? '
  return terms.nearest(f'--{name}', [f'--{flag}' for flag in flags])


def _replace(
  config: dict[str, Any], given: Sequence[Given], fidelity: str
) -> list[str]:
  """Change the method and the model and add methods; return notes."""
  notes = []
  last = {one.name: one for one in given}
  for flag, change in (
    (_METHOD, lambda name: recipes.change_method(config, name, fidelity)),
    (_MODEL, lambda name: recipes.change_model(config, name)),
  ):
    if flag not in last:
      continue
    section, key = recipes.locate(config, flag, str(last[flag]))
    if last[flag].value() != section[key]:
      change(last[flag].value())
      notes.append(f'{last[flag]} takes its own settings')
  data = last[_DATA].value() if _DATA in last else ''
  if data not in ('', config['data']['name'], *recipes.DATA):
    recipes.change_data(config, data)
    what = 'all of its images (splits.pool=0)'
    if 'config.splits.pool' in last:
      what = 'its own folder'
    notes.append(f'{last[_DATA]} takes {what}')
  if 'compare' in last:
    for method in last['compare'].value().split(','):
      recipes.add_method(config, method.strip(), fidelity)
    notes.append(f'{last["compare"]} takes the settings of these methods')
  if notes and not {'workdir', 'config.workdir'} & set(last):
    notes[-1] += f'; the work directory is {config["workdir"]}'
  return notes


def from_file(place: str, arguments: tuple[str, ...]) -> dict[str, Any]:
  """Return what the function `get_config` of a file returns, as plain values.

  Args:
    place: the file.
    arguments: of the function.

  Raises:
    ValueError: there is no such file or function, or it fails.
  """
  path = files.path(place)
  if not path.is_file():
    there = [str(other) for other in path.parent.glob('*.py')]
    raise ValueError(
      f'no file {place!r} (looked in {pathlib.Path.cwd()}); '
      f'{terms.nearest(place, there)}--help has the configurations with a name'
    )
  module = plugins.load_file(place)
  if hasattr(module, 'METHOD') and not hasattr(module, 'get_config'):
    raise ValueError(
      f'{place} holds a method; use it as --config=unlearn:{place},resnet18'
    )
  if not hasattr(module, 'get_config'):
    raise ValueError(
      f'{place} has no function get_config; define get_config(scale) that '
      'returns what jaxmu.study.recipes.job_config returns'
    )
  try:
    inspect.signature(module.get_config).bind(*arguments)
  except TypeError as error:
    raise ValueError(
      f'{place}: get_config {error}; give the argument after a colon, as '
      f'--config={place}:SCALE, if and only if it takes one'
    ) from error
  try:
    config = module.get_config(*arguments)
  except ValueError:  # raised by this package, with a remedy
    raise
  except Exception as error:
    raise ValueError(
      f'{place}: get_config raises {plugins.reason(error)}'
    ) from error
  config = config.to_dict() if hasattr(config, 'to_dict') else config
  if not isinstance(config, Mapping):
    raise ValueError(
      f'{place}: get_config returns a {type(config).__name__}; return what '
      'jaxmu.study.recipes.job_config returns'
    )
  return _plain(config)


def _complete(config: dict[str, Any], place: str) -> dict[str, Any]:
  """Add fields that a file may leave out, so that they can be set."""
  for name, fields in recipes.job_config('ft').items():
    if name in ('compare', 'metrics', 'originals', 'retrained'):
      config.setdefault(name, fields)
    elif name not in config or (
      isinstance(fields, dict) and not isinstance(config[name], dict)
    ):
      raise ValueError(
        f'{place}: config.{name} is missing or not a section; start from what '
        'jaxmu.study.recipes.job_config returns'
      )
    elif name in ('attack', 'run'):
      config[name] = {**fields, **config[name]}
  for section, field in _NAMES:
    if field not in config[section]:
      raise ValueError(f'{place}: config.{section}.{field} is missing; add it')
  return config


def _plain(config: Mapping[str, Any]) -> dict[str, Any]:
  """Copy nested mappings, so that a field can be set in place."""
  return {
    key: _plain(value) if isinstance(value, Mapping) else value
    for key, value in config.items()
  }


def _convert(old: Any, given: Given, field: str) -> Any:
  """Return a value in the type of the field."""
  if isinstance(old, bool):
    return _boolean(given)
  if isinstance(old, str):
    if given.text is None:
      given.value()
    return given.text
  text = given.value()
  if isinstance(old, int | float):
    kind = type(old)
    try:
      return terms.number(text, kind)
    except ValueError:
      wanted = 'whole number' if kind is int else 'number'
      raise ValueError(f'{given}: give a {wanted}') from None
  value = cli.literal(text)
  if isinstance(old, dict):
    if isinstance(value, str) and _takes_settings(field):
      return value
    if not isinstance(value, dict):
      fields = [f'--{given.name}.{key}=...' for key in old]
      raise ValueError(
        f'{given}: {given.name} is a section; set a field of it'
        + (f', {fields[0]}' if fields else " or give a dictionary, '{...}'")
      )
    return value
  if isinstance(old, tuple | list):
    if isinstance(value, str):
      value = [part.strip() for part in value.split(',')]
    return tuple(value) if isinstance(value, tuple | list) else (value,)
  return value


def _takes_settings(field: str) -> bool:
  """Return whether a field takes 'tuned' or a settings file too."""
  return field in ('config.unlearn.hparams', 'config.train') or (
    field.startswith('config.compare.')
  )


def _boolean(given: Given) -> bool:
  text = 'true' if given.text is None else given.text.lower()
  if text not in (*_TRUE, *_FALSE):
    raise ValueError(f'{given}: give true or false')
  return text in _TRUE
