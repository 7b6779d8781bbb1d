"""The commands: help, arguments, and one line for every mistake."""

import configparser
import importlib
import json
import os
import pathlib
import re
import shlex
import subprocess
import sys
import warnings

import jax
import pytest

import jaxmu
import jaxmu.sweep as sweep
from jaxmu import cli, files, main, rank, store
from jaxmu.cli import arguments
from jaxmu.study import recipes, run, shelves
from jaxmu.sweeps import status

ROOT = pathlib.Path(jaxmu.__file__).parent.parent

# Imports once what `python -m jaxmu.main` imports, then runs it for each list
# of arguments in a child process of its own.
_RUNNER = """
import json, os, runpy, sys, tempfile, traceback
from jaxmu.cli import arguments
from jaxmu.study import job, planner, run, settings

def start(argv, error):
  os.dup2(error.fileno(), 2)
  sys.argv = ['jaxmu.main', *argv]
  try:
    runpy.run_module('jaxmu.main', run_name='__main__', alter_sys=True)
  except SystemExit as end:
    if isinstance(end.code, str):
      os.write(2, f'{end.code}\\n'.encode())
    os._exit(1 if isinstance(end.code, str) else end.code or 0)
  except BaseException:
    os.write(2, traceback.format_exc().encode())
    os._exit(1)
  os._exit(0)

results = []
for argv in json.load(sys.stdin):
  with tempfile.TemporaryFile() as error:
    child = os.fork()
    if not child:
      start(argv, error)
    _, status = os.waitpid(child, 0)
    error.seek(0)
    results.append([os.waitstatus_to_exitcode(status), error.read().decode()])
print(json.dumps(results))
"""

# Arguments, then what the line on stderr must hold: the value and the remedy.
SLIPS = [
  ([], ['no configuration', '--config=msg_resnet']),
  (['--config='], ['--config needs a value']),
  (['--config=configs/msg_resnett.py'], ["'configs/msg_resnett.py'", 'looked']),
  (['--config=msg_resnett'], ["'msg_resnett'", "did you mean 'msg_resnet'"]),
  (['--config=scrub'], ["'scrub'", "did you mean 'scrub_resnet'"]),
  (['--config=method.py'], ['--config=unlearn:method.py']),
  (['--config=empty.py'], ['empty.py', 'define get_config']),
  (['--config=broken.py'], ['broken.py, line 2', 'ZeroDivisionError']),
  (['--config=text.py'], ['text.py', 'returns a str']),
  (['--config=msg_resnet:cifar11'], ["'cifar11'", "did you mean 'cifar10'"]),
  (['--config=msg_resnet:cifar10,papr'], ["'papr'", "',paper'"]),
  (['--config=unlearn:mgs,resnet18'], ["'mgs'", "did you mean 'msg'"]),
  (['--config=nameless.py'], ['config.unlearn.method is missing']),
  (['--config=part.py'], ['config.seed is missing', 'job_config']),
  (['msg_resnet', 'ct_resnet'], ["'msg_resnet' and 'ct_resnet'; give one"]),
  (['--confg=msg_resnet'], ['--confg', "did you mean '--config'"]),
  (
    ['--config=msg_resnet', '--config.trian.num_epochs=3'],
    ['--config.trian.num_epochs=3', "did you mean 'train'"],
  ),
  (
    ['--config=msg_resnet', '--config.train.epochs=3'],
    ['--config.train.epochs=3', "did you mean 'num_epochs'"],
  ),
  (
    ['--config=msg_resnet', '--config.unlearn.hparams.lr=3'],
    ['msg', "'lr'", "did you mean 'learning_rate'", 'reinit_fraction'],
  ),
  (
    ['--config=ct_resnet', '--config.compare.msg.num_epochs=3'],
    ['--config.compare.msg.num_epochs=3', '--compare=msg'],
  ),
  (
    ['--config=msg_resnet', '--config.compare.msg.num_epochs=3'],
    ['msg is the method of the job', '--config.unlearn.hparams.num_epochs'],
  ),
  (['--config=msg_resnet', '--compare=cct'], ["'cct'", "did you mean 'ct'"]),
  (['--config=msg_resnet', '--compare=msg'], ["'msg' already"]),
  (['--config=msg_resnet', '--quick'], ['--quick describes a plan']),
  (
    ['--config=ft_resnet', '--config.unlearn.method=mgs'],
    ["'mgs'", "did you mean 'msg'"],
  ),
  (
    ['--config=ft_resnet', '--config.model.name=resnet19'],
    ["'resnet19'", "did you mean 'resnet18'"],
  ),
  (['--config=ft_resnet', '--config.train=3'], ['set a field of it']),
  (['--config=ft_resnet', '--config.seed.x=3'], ['config.seed is a value']),
  (['--config=ft_resnet', '--config.seed=x'], ['--config.seed=x', 'whole']),
  (['--config=ft_resnet', '--config.seed'], ['--config.seed needs a value']),
  (['--config=ft_resnet', '--config.seed=-1'], ['config.seed = -1']),
  (
    ['--config=ft_resnet', '--config.train.num_epochs=1.5'],
    ['--config.train.num_epochs=1.5', 'whole number'],
  ),
  (
    ['--config=ft_resnet', '--config.run.devices=1_0'],
    ['--config.run.devices=1_0', 'whole number'],
  ),
  (
    ['--config=ft_resnet', '--config.train.learning_rate=\u0663'],
    ['--config.train.learning_rate=', 'give a number'],
  ),
  (
    ['--config=ft_resnet', '--config.model.options.other=1_0'],
    ["no option 'other'"],
  ),
  (
    ['--config=ft_resnet', '--config.model.options={"width": 0x10}'],
    ['config.model.options is a section'],
  ),
  (
    ['--config=ft_resnet', '--config.run.verify=maybe'],
    ['--config.run.verify=maybe', 'true or false'],
  ),
  (
    ['--config=ft_resnet', '--config.model.options.widht=8'],
    ["no option 'widht'", 'width'],
  ),
  (
    ['--config=ft_resnet', f'--config.run.devices={10**12}'],
    ['config.run.devices = 1000000000000; give a value in'],
  ),
  (
    ['--config=ft_resnet', '--plan', '--workdir=/dev/null'],
    ["config.workdir = '/dev/null'", 'not a folder', '--config.workdir=PATH'],
  ),
  (
    ['--config=ft_resnet:mnist', '--config.data.folder=nowhere', '--workdir=x'],
    ['MNIST is not in nowhere', 'jaxmu.prepare mnist', '--config.data.folder'],
  ),
]

FILES = {
  'method.py': 'METHOD = 1',
  'empty.py': '',
  'broken.py': 'def get_config():\n  return 1 / 0\n',
  'text.py': "def get_config():\n  return 'text'\n",
  'part.py': "def get_config():\n  return {'workdir': 'a'}\n",
  'nameless.py': (
    'from jaxmu.study import recipes\n'
    'def get_config():\n'
    '  return recipes.job_config("ft") | {"unlearn": {}}\n'
  ),
  'configs/__init__.py': '',
  'configs/common.py': "raise RuntimeError('of another project')",
}


@pytest.fixture(name='folder')
def _folder(tmp_path, monkeypatch):
  """A folder outside the checkout, with configurations of another project."""
  for name, text in FILES.items():
    (tmp_path / name).parent.mkdir(exist_ok=True)
    (tmp_path / name).write_text(text)
  monkeypatch.chdir(tmp_path)
  return tmp_path


def _process(*command: str, folder: pathlib.Path, **options):
  return subprocess.run(
    [sys.executable, *command],
    cwd=folder,
    env=dict(os.environ, PYTHONPATH=str(ROOT)),
    capture_output=True,
    text=True,
    **options,
  )


def test_every_mistake_gives_one_line_with_the_remedy(folder):
  asked = json.dumps([argv for argv, _ in SLIPS])
  done = _process('-c', _RUNNER, folder=folder, input=asked)
  assert done.returncode == 0, done.stderr
  wrong = []
  for (argv, wanted), (code, text) in zip(
    SLIPS, json.loads(done.stdout.splitlines()[-1]), strict=True
  ):
    lines = text.strip().splitlines()
    fine = code and len(lines) == 1 and lines[0].startswith('error: ')
    if not fine or any(one not in text for one in wanted):
      wrong.append((argv, wanted, code, text))
  assert not wrong
  assert not (folder / 'workdir').exists()


def test_a_mistake_in_a_separate_process(folder):
  done = _process('-m', 'jaxmu', 'run', folder=folder)
  assert done.returncode == 1
  assert done.stderr.startswith('error: no configuration; give one as --config')
  assert len(done.stderr.splitlines()) == 1


def test_commands_are_known_without_importing_jax(folder):
  code = (
    'import sys; from jaxmu import cli; cli.main([]); '
    "assert not {'jax', 'numpy', 'absl'} & set(sys.modules)"
  )
  done = _process('-c', code, folder=folder)
  assert done.returncode == 0, done.stderr
  for name in cli.COMMANDS:
    assert f'  {name} ' in done.stdout
  assert done.stdout == _process('-m', 'jaxmu', '--help', folder=folder).stdout


def test_modules_that_are_functions_are_one_class_and_import_no_jax(folder):
  """The modules of commands whose names `jaxmu` also has as functions."""
  code = (
    'import inspect, sys, jaxmu, jaxmu.search, jaxmu.sweep, jaxmu.unlearn\n'
    'from jaxmu import cli\n'
    'assert jaxmu.search is sys.modules["jaxmu.search"]\n'
    'assert type(jaxmu.search) is type(jaxmu.unlearn)\n'
    "assert not {'jax', 'numpy', 'absl'} & set(sys.modules)\n"
    'import jaxmu.api as api\n'
    'for name in ("search", "sweep", "unlearn"):\n'
    '  module, function = (getattr(m, name) for m in (jaxmu, api))\n'
    '  assert inspect.signature(module) == inspect.signature(function)\n'
    "for call, given in ((jaxmu.search, ['tf']), (jaxmu.unlearn, ['ft', 3])):\n"
    '  try: call(*given)\n'
    "  except ValueError: print('refused')"
  )
  done = _process('-c', code, folder=folder)
  assert done.returncode == 0, done.stderr
  assert done.stdout.split() == ['refused', 'refused']


def test_unknown_command_gives_the_nearest(capsys):
  assert cli.main(['prepair']) == 2
  assert "'prepair'; did you mean 'prepare'" in capsys.readouterr().err


def test_bad_input_of_every_command_is_one_line(folder, capsys, monkeypatch):
  """A missing or unknown option, a missing file, and a wrong name."""
  # JAX has started in this process.
  monkeypatch.setattr(main, 'set_up_jax', lambda config: None)
  # `prepare` leaves sets that are there alone.
  monkeypatch.setenv('JAXMU_DATA_DIR', str(folder / 'data'))
  commands = {
    name: importlib.import_module(one.module)
    for name, one in cli.COMMANDS.items()
  }
  files = ['--scores=none.npz', '--out=out']
  request = ['--checkpoint=none.pth', '--forget=ids.txt', '--out=out']
  cases = [
    ('audit', [], '--scores'),
    ('audit', [*files, '--atacks=loss'], "did you mean '--attacks'"),
    ('audit', files, 'none.npz'),
    ('rank', [], 'no work directory: give at least 2 jobs'),
    ('rank', ['a', 'b', '--more'], "'--more'"),
    ('rank', ['a', 'b', '--out=out'], 'a has no per_cluster.csv'),
    ('rank', ['a', 'b'], 'a has no per_cluster.csv'),
    ('reproduce', [], 'no number; give python -m jaxmu.reproduce ROW'),
    ('reproduce', ['x', '--wrkdir=y'], "did you mean '--workdir'"),
    ('reproduce', ['x', '--published=none'], 'none has no published results'),
    ('prepare', [], 'name'),
    ('prepare', ['pets', '--from_imges=x'], "did you mean '--from_images'"),
    ('prepare', ['pets', '--from_images=none'], 'none'),
    ('prepare', ['pets', '--image_size=1_0'], "'1_0'; give a whole number"),
    ('prepare', ['pets', '--test_fraction=0_1'], "'0_1'; give a number"),
    ('prepare', ['mnist', '--manual_dir=none'], 'none is not a folder'),
    ('unlearn', [], '--checkpoint'),
    ('unlearn', [*request, '--seed=1_0'], "'1_0'; give a whole number"),
    ('audit', [*files, '--fprs=0_1'], "'0_1'"),
    ('audit', [*files, '--max_gb=1_0'], '--max_gb=1_0'),
    ('unlearn', [*request, '--metod=ft'], "did you mean '--method'"),
    ('unlearn', [*request, '--data=none'], "unknown data set 'none'"),
    ('unlearn', [*request, '--data=cifar10', '--data_dir=.'], 'cifar10'),
    ('run', [], 'no configuration'),
    ('sweep', [], 'no configuration'),
    ('sweep', ['deep_unlearn', '--onlyy=x'], "did you mean '--only'"),
    ('sweep', ['deep_unlearn', '--only=x'], "no unit 'x'"),
    ('store', [], 'no action; give python -m jaxmu.store list|check|prune'),
    ('store', ['lst', '.'], "did you mean 'list'"),
    ('store', ['list'], 'no work directory'),
    ('store', ['list', '--quick'], 'no work directory'),
    ('store', ['list', 'none'], "'none' is not a folder"),
    ('store', ['list', '.'], "'.' holds no stored work"),
    ('store', ['list', '.', 'more'], "no argument 'more'"),
    ('store', ['list', '.', '--quick'], 'no argument --quick'),
    ('store', ['check', '.', '--quik'], "did you mean '--quick'"),
    ('store', ['check', '.', '--quick=maybe'], '--quick=maybe'),
    ('store', ['prune', '.'], 'no configuration'),
    ('store', ['prune', '.', '--delte'], "did you mean '--delete'"),
    ('store', ['prune', '.', '--config=x'], "no configuration 'x'"),
    ('store', ['prune', '.', 'deep_unlern'], "no configuration 'deep_unlern'"),
    ('store', ['prune', '.', '--config=ft_resnet'], 'holds no stored work'),
    ('store', ['prune', '.', '--config=ft_resnet', '--delete=x'], '--delete=x'),
    (
      'run',
      ['--config=ft_resnet:cifar10', '--config.data.folder=.'],
      'cifar10',
    ),
  ]
  wrong = []
  for name, argv, expected in cases:
    with pytest.raises(SystemExit) as end:
      commands[name].main(argv)
    text, printed = str(end.value.code), capsys.readouterr()
    one_line = text.startswith('error: ') and len(text.splitlines()) == 1
    if not one_line or printed.err or expected not in text:
      wrong.append((name, argv, text, printed))
  assert not wrong


def test_an_interrupted_job_or_search_ends_with_one_line(monkeypatch, capsys):
  monkeypatch.setattr(main, 'start', lambda argv, more: (None, None))

  def interrupted(chosen, request):
    raise KeyboardInterrupt

  with pytest.raises(SystemExit) as end:
    main.command(['--config=ft_resnet'], '', interrupted)
  assert end.value.code == 130
  (line,) = capsys.readouterr().err.splitlines()
  assert line == 'interrupted'  # what a process prints is in test_signals.py


def test_every_other_command_ends_with_one_line_too(monkeypatch, capsys):
  def interrupted(*args, **options):
    raise KeyboardInterrupt

  monkeypatch.setattr(sweep, '_run', interrupted)
  monkeypatch.setattr(shelves, 'listing', interrupted)
  monkeypatch.setattr(rank, 'rank', interrupted)
  for entry, argv in (
    (sweep.main, ['--config=deep_unlearn']),
    (rank.main, ['a', 'b', '--out=c']),
    (store.main, ['list', '.']),
  ):
    with pytest.raises(SystemExit) as end:
      entry(argv)
    assert end.value.code == 130
    assert capsys.readouterr().err == 'interrupted\n'


def test_help_names_all_configurations_without_jax():
  assert main.configuration_names() == recipes.names()
  code = """
import importlib, sys
commands = 'attack', 'main', 'reproduce', 'search', 'store', 'sweep', 'unlearn'
for name in commands:
  try:
    importlib.import_module(f'jaxmu.{name}').main(['--help'])
  except SystemExit:
    pass
assert not {'jax', 'scipy', 'sklearn', 'matplotlib'} & set(sys.modules)
"""
  subprocess.run([sys.executable, '-c', code], check=True)


def test_work_directories_share_compiled_programs(monkeypatch, tmp_path):
  """Old ones are deleted; a folder that the user has chosen stays."""
  changed = {}
  monkeypatch.setattr(jax.config, 'update', changed.__setitem__)
  monkeypatch.setenv('JAXMU_CACHE_DIR', str(tmp_path))
  main.set_up_jax({'run': {'devices': 3}})
  assert changed == {'jax_num_cpu_devices': 3}
  new, old = (tmp_path / 'programs' / name for name in ('new', 'old'))
  files.write_text(new, 'program')
  files.write_text(old, 'program')
  os.utime(old, (0, 0))
  chosen = jax.config.jax_compilation_cache_dir
  monkeypatch.setattr(type(jax.config), 'jax_compilation_cache_dir', None)
  main.set_up_jax({})
  assert chosen and new.exists() and not old.exists()
  assert changed['jax_compilation_cache_dir'] == str(tmp_path / 'programs')


def test_warnings_of_commands_are_plain_lines(capsys):
  with cli.one_line_errors():
    warnings.warn('two\n  lines', stacklevel=1)
  assert capsys.readouterr().err == 'Warning: two lines\n'


def test_a_reader_may_end_before_the_output():
  line = f'{shlex.quote(sys.executable)} -m jaxmu.reproduce --list | true'
  done = subprocess.run(
    ['bash', '-c', f'{line}; echo ${{PIPESTATUS[0]}}'],
    capture_output=True,
    text=True,
    check=True,
    cwd=ROOT,
  )
  assert (done.stdout, done.stderr) == ('141\n', '')


def _setup():
  setup = configparser.ConfigParser()
  setup.read(ROOT / 'setup.cfg')
  return setup


def test_extras_have_names_that_every_pip_finds():
  """Old versions of pip do not find a name with an underscore."""
  extras = set(_setup()['options.extras_require'])
  assert all(re.fullmatch('[a-z0-9]+(-[a-z0-9]+)*', name) for name in extras)
  pages = [*ROOT.glob('docs/**/*.md'), ROOT / 'README.md']
  code = [*ROOT.glob('jaxmu/**/*.py'), *ROOT.glob('benchmarks/*.py')]
  named = {
    name
    for path in (*pages, *code)
    for name in re.findall(r'jaxmu\[([\w-]+)\]', path.read_text())
  }
  assert len(named) > 4 and named <= extras, named - extras


def test_console_script_is_the_command():
  setup = _setup()
  name, _, target = setup['options.entry_points']['console_scripts'].partition(
    '='
  )
  module, _, attribute = target.strip().partition(':')
  assert name.strip() == 'jaxmu'
  assert getattr(importlib.import_module(module), attribute) is cli.main


def test_the_same_names_in_any_folder(folder):
  for spec, name in [
    ('msg_resnet', 'msg_resnet'),
    ('configs/msg_resnet.py', 'msg_resnet'),
    ('configs/scrub_tinyvit.py', 'scrub_tinyvit'),
    ('unlearn:vit11m,scrub', 'scrub_tinyvit'),
    ('configs/unlearn.py:scrub,tinyvit', 'scrub_tinyvit'),
  ]:
    assert arguments.load(spec) == recipes.named(name)('')
  assert arguments.load('benchmark:mnist') == recipes.benchmark('mnist')


def test_a_file_of_the_user_makes_a_configuration(folder):
  (folder / 'mine.py').write_text(
    'from jaxmu.study import recipes\n'
    'def get_config(scale=""):\n'
    '  config = recipes.job_config("ct", scale=scale)\n'
    '  del config["originals"], config["run"]["cache_teacher"]\n'
    '  return config\n'
  )
  for place in ('mine.py:mnist', './mine.py:mnist', str(folder / 'mine.py')):
    scale = place.partition(':')[2]
    assert arguments.load(place) == recipes.job_config('ct', scale=scale)


def test_a_number_in_a_literal_must_be_decimal():
  for text in ('1_0', '0x10', '[1, 1_0]', '{"a": 0b1}', '2j', '\u0663'):
    assert cli.literal(text) == text
  assert cli.literal(' [-1.5e-3, +2, True, "1_0"]') == [-1.5e-3, 2, True, '1_0']
  assert cli.literal('{"a": .5, "b": (1., 1E3)}') == {'a': 0.5, 'b': (1, 1e3)}


def test_fields_are_set_by_their_type():
  request = arguments.read(
    [
      '--config',
      'msg_resnet',
      *('--config.seed', '7'),
      '--config.train.learning_rate=1',
      '--config.model.options.width=16',
      "--config.model.options={'width': 4}",
      '--config.model.options.norm=batch',
      '--config.metrics=a.py,b.py:B',
      '--noconfig.run.verify',
      '--config.run.verify=True',
      '--config.run.cache_teacher=false',
      '--config.splits.forget=',
      '--config.workdir=a',
      '--workdir=b c',
      '--plan',
    ]
  )
  wanted = recipes.job_config('msg')
  wanted.update(seed=7, workdir='b c', metrics=('a.py', 'b.py:B'))
  wanted['train']['learning_rate'] = 1.0
  wanted['model']['options'] = {'width': 4, 'norm': 'batch'}
  wanted['run']['cache_teacher'] = False
  wanted['splits']['forget'] = ''
  fields = request.fields
  assert request == arguments.Request(wanted, True, [], fields=fields)
  assert len(fields) == 11 and fields[0] == 'config.seed'
  assert fields[-1] == 'config.workdir'
  assert isinstance(request.config['train']['learning_rate'], float)


def test_changed_method_and_model_bring_their_settings_and_folder():
  request = arguments.read(
    [
      '--config=ft_resnet:mnist,paper',
      '--config.unlearn.hparams.alpha=0.25',
      '--config.unlearn.method=scrub',
      '--config.model.name=vit11m',
    ]
  )
  wanted = recipes.job_config('scrub', model='vit11m', scale='mnist,paper')
  wanted['unlearn']['hparams']['alpha'] = 0.25
  assert request.config == wanted
  assert request.notes[-1].endswith('directory is workdir/scrub_tinyvit_mnist')
  same = arguments.read(['--config=ft_resnet', '--config.unlearn.method=ft'])
  assert (same.config, same.notes) == (recipes.job_config('ft'), [])


def test_a_custom_data_set_brings_its_pool_and_folder():
  request = arguments.read(['--config=msg_resnet', '--config.data.name=pets'])
  wanted = recipes.job_config('msg')
  wanted['workdir'] = 'workdir/msg_resnet_pets'
  wanted['splits']['pool'], wanted['data']['name'] = 0, 'pets'
  assert request.config == wanted
  assert 'splits.pool=0' in request.notes[0]
  given = ['--config.splits.pool=300', '--workdir=a']
  request = arguments.read(
    ['--config=msg_resnet', '--config.data.name=pets', *given]
  )
  assert request.config['splits']['pool'] == 300
  assert request.config['workdir'] == 'a'
  same = arguments.read(['--config=msg_resnet', '--config.data.name=mnist'])
  assert (same.config['splits']['pool'], same.notes) == (1280, [])


def test_compared_methods_bring_their_settings_and_can_be_changed():
  request = arguments.read(
    [
      '--config=ft_resnet',
      '--config.compare.msg.num_epochs=3',
      '--compare=ct,msg',
    ]
  )
  wanted = recipes.job_config('ft', compare=['ct', 'msg'])
  wanted['compare']['msg']['num_epochs'] = 3
  assert request.config == wanted


def test_a_shell_reads_the_printed_command_as_it_was_given(monkeypatch):
  given = [
    '--config=msg_resnet',
    '--workdir=a {blank}\'s "folder" $HOME *',
    "--config.model.options={'width': 4}",
  ]
  calls = []
  monkeypatch.setattr(main, 'set_up_jax', lambda config: None)
  monkeypatch.setattr(
    run, 'run', lambda chosen, command: calls.append((chosen.workdir, command))
  )
  main.main(given)
  ((workdir, command),) = calls
  assert workdir == given[1].partition('=')[2]
  program = 'import json, sys; print(json.dumps(sys.argv[1:]))'
  line = command.replace(
    'python -m jaxmu.main', shlex.join([sys.executable, '-c', program]), 1
  )
  done = subprocess.run(['sh', '-c', line], capture_output=True, check=True)
  assert json.loads(done.stdout) == given


def test_the_command_that_repeats_a_unit_of_a_sweep():
  given = ['--config=deep_unlearn', '--workdir=a {b}', '--only', 'x', '--plan']
  line = shlex.join(['python', '-m', 'jaxmu.sweep', *given, '--share=1/4'])
  *program, first, workdir, plan, only = shlex.split(
    status.repeat(line, 'digits_tiny/main')
  )
  assert program == ['python', '-m', 'jaxmu.sweep']
  assert [first, workdir, plan] == [given[0], given[1], '--plan']
  assert only == '--only=digits_tiny/main'


@pytest.mark.slow
def test_printed_command_makes_the_same_numbers_again(folder):
  command = [
    'run',
    '--config=ft_resnet',
    '--config.unlearn.method=ct',
    '--workdir=a {blank} folder',
    '--config.model.name=tiny',
    "--config.model.options={'width': 8}",
    '--config.splits.num_splits=8',
    '--config.train.num_epochs=2',
    '--config.unlearn.hparams.num_epochs=1',
    '--config.timing.repeats=1',
  ]
  done = _process('-m', 'jaxmu', *command, folder=folder)
  assert done.returncode == 0, done.stderr
  report = json.loads((folder / 'a {blank} folder/results.json').read_text())
  program, *printed = shlex.split(report['command'])
  assert program == 'python'
  again = _process(*printed, folder=folder)
  assert again.returncode == 0, again.stderr
  assert 'up to date, nothing redone' in again.stdout
