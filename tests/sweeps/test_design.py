"""The configuration of a sweep: cells, one job per study, mistakes."""

import importlib
import os

import numpy as np
import pytest

import jaxmu
import jaxmu.sweep as command
from jaxmu import hparams as hp
from jaxmu import methods, published
from jaxmu.data import datasets
from jaxmu.report import checksums
from jaxmu.study import tuned
from jaxmu.sweeps import design, graph, plan, status
from tests.sweeps import small_sweep


def test_the_file_gives_what_its_name_gives():
  file = importlib.import_module('configs.deep_unlearn')
  for scale in ('', *design.SCALES):
    expected = design.complete(design.deep_unlearn(scale))
    assert design.complete(file.get_config(scale)) == expected
    for spec in ('deep_unlearn', 'configs/deep_unlearn.py'):
      argv = [f'--config={spec}:{scale}' if scale else f'--config={spec}']
      assert command.read(argv).config == expected


def test_each_cell_and_study_has_a_job_in_a_folder_of_its_own(tmp_path):
  config = small_sweep.config(tmp_path, models=('tiny', 'resnet18'))
  sweep = design.from_config(config)
  assert [study.name for study in sweep.studies] == [
    'digits_tiny/search',
    'digits_tiny/main',
    'digits_tiny/ulira_search',
    'digits_tiny/ulira',
    'digits_resnet18/search',
    'digits_resnet18/main',
  ]
  for study in sweep.studies:
    assert study.settings.workdir == str(tmp_path / study.name)
    assert study.settings.train['num_epochs'] == 2
  search, main, ulira_search, ulira = sweep.studies[:4]
  assert search.settings.splits == main.settings.splits
  assert ulira_search.settings.splits == ulira.settings.splits
  assert main.settings.splits.seeds == 5
  assert ulira.settings.splits.num_splits == 8
  assert main.methods == ('ft', 'ga') and ulira.methods == ('ft',)
  assert main.settings_file('ga') == (
    tmp_path / 'digits_tiny/search/search/ga/settings.json'
  )


@pytest.mark.parametrize(
  'studies, kinds',
  [
    (('search',), ['search']),
    (('main',), ['main']),
    (('search', 'ulira'), ['ulira_search', 'ulira']),
    (('ulira', 'main'), ['main', 'ulira']),
  ],
)
def test_a_search_is_for_the_studies_that_are_chosen(tmp_path, studies, kinds):
  config = small_sweep.config(tmp_path, studies=studies)
  found = design.from_config(config).studies
  assert [study.kind for study in found] == kinds
  searched = {s.kind: s.search is not None for s in found if not s.searches}
  assert all(has == ('search' in studies) for has in searched.values())


def test_arguments_have_the_types_of_the_fields(tmp_path):
  config = command.read(
    [
      *('--config=deep_unlearn', f'--workdir={tmp_path}'),
      *('--config.methods=ft,ga', '--config.all.run.memory=2'),
      *('--config.main.splits.seeds=7', '--config.search.search.trials=3'),
      '--config.all.search.space.learning_rate=log(1e-4, 1e-1)',
    ]
  ).config
  search, main = design.from_config(config).studies[:2]
  assert main.settings.splits.seeds == 7 and main.settings.run.memory == 2.0
  assert search.settings.search.trials == 3
  assert main.settings.search.trials == 100
  assert 'learning_rate' in search.settings.search_space


def test_cells_choose_combinations_and_set_fields(tmp_path):
  cells = {
    'digits_tiny': {},
    'digits_resnet18': {
      'all': {'train.num_epochs': 9, 'seed': 4},
      'main': {'train.batch_size': 32},
    },
  }
  config = small_sweep.config(
    tmp_path, models=('tiny', 'resnet18', 'vit11m'), cells=cells
  )
  config['all'] = {**config['all'], 'seed': 5}
  found = {
    study.name: study.settings for study in design.from_config(config)[1]
  }
  assert {name.partition('/')[0] for name in found} == set(cells)
  large, small = found['digits_resnet18/main'], found['digits_tiny/main']
  # A field of the whole sweep comes after one of a cell.
  assert large.seed == 5 and small.seed == 5
  assert large.train['batch_size'] == 32
  assert found['digits_resnet18/search'].train['batch_size'] == 32
  assert small.train['batch_size'] == 64


def test_the_study_of_a_laptop_has_four_cells():
  sweep = design.from_config(design.deep_unlearn('laptop'))
  kinds: dict[str, list[str]] = {}
  for study in sweep.studies:
    kinds.setdefault(study.cell.name, []).append(study.kind)
  main, all_four = (
    ['search', 'main'],
    ['search', 'main', 'ulira_search', 'ulira'],
  )
  assert kinds == {
    'digits_resnet18': all_four,
    'digits_vit11m': main,
    'fashion_mnist_resnet18': main,
    'cifar10_resnet18': all_four,
  }
  for study in sweep.studies:
    sizes = plan.set_sizes(study.settings)
    if study.cell.data == 'digits' or study.kind not in ('main', 'ulira'):
      continue
    expected = {'main': 10_000, 'ulira': 5000}[study.kind]
    assert sizes.retain + sizes.forget == expected


MISTAKES = [
  ([], ['no configuration', '--config=deep_unlearn']),
  (['deep_unlearn', 'x.py'], ["two configurations, 'deep_unlearn' and 'x.py'"]),
  (['--config=deep_unlern'], ["'deep_unlern'", "did you mean 'deep_unlearn'"]),
  (['--config=none.py'], ["'none.py'", 'looked in']),
  (['deep_unlearn:papr'], ["'papr'", "did you mean 'paper'"]),
  (['deep_unlearn', '--config.data=cifar11'], ["'cifar11'", "'cifar10'"]),
  (['deep_unlearn', '--config.models=resnet19'], ["'resnet19'", "'resnet18'"]),
  (['deep_unlearn', '--config.methods=mgs'], ["'mgs'", "'msg'"]),
  (['deep_unlearn', '--config.methods=ft,ft'], ["'ft' twice"]),
  (['deep_unlearn', '--config.studies=serach'], ["'serach'", "'search'"]),
  (['deep_unlearn', '--config.methods='], ['--config.methods', 'value']),
  (
    ['deep_unlearn', '--config.metods=ft'],
    ['--config.metods=ft', "did you mean 'methods'"],
  ),
  (['deep_unlearn', '--config.seed=3'], ['--config.all.seed=VALUE']),
  (['deep_unlearn', '--config.data.folder=x'], ['--config.all.folder']),
  (
    ['deep_unlearn', '--config.main.splits.seds=3'],
    ['splits.seds', "did you mean 'seeds'"],
  ),
  (
    ['deep_unlearn', '--config.main.splits.seeds=x'],
    ['--config.main.splits.seeds=x', 'whole number'],
  ),
  (['deep_unlearn', '--config.main.splits.seeds=0'], ['digits', '= 0']),
  (
    ['deep_unlearn', '--config.studies=ulira', '--config.ulira_methods=ga'],
    ['the sweep has no study', 'ga'],
  ),
  (
    ['msg_resnet'],
    ["'msg_resnet' is the configuration of a job", 'jaxmu.main'],
  ),
  (['configs/msg_resnet.py'], ['is the configuration of a job', 'jaxmu.main']),
  (['deep_unlearn', '--config.main=3'], ['--config.main.seed=VALUE']),
  (
    ['deep_unlearn', '--config.ulira_methods=mgs'],
    ["'mgs'", "did you mean 'msg'"],
  ),
  (
    ['deep_unlearn', '--config.ulira_models=resnet19'],
    ["'resnet19'", "did you mean 'resnet18'"],
  ),
  (
    ['deep_unlearn', '--config.all.workdir=x'],
    ['config.all.workdir', '--workdir=DIR'],
  ),
  (
    ['deep_unlearn', '--config.main.data.name=cifar10'],
    ['config.main.data.name', '--config.data=NAME'],
  ),
  (
    ['deep_unlearn', '--config.all.model.name=tiny'],
    ['config.all.model.name', '--config.models=NAME'],
  ),
  (
    ['deep_unlearn', '--config.all.unlearn.method=ga'],
    ['config.all.unlearn.method', '--config.methods=NAME'],
  ),
  (['deep_unlearn', '--workdri=x'], ["did you mean '--workdir'"]),
]


def test_a_plan_of_a_part_is_refused():
  with pytest.raises(SystemExit, match='drop --only'):
    command.main(['deep_unlearn', '--plan', '--only=digits_resnet18'])


def test_a_plan_is_no_state():
  with pytest.raises(SystemExit, match='--plan --status: give one'):
    command.main(['deep_unlearn', '--plan', '--status'])


def test_a_file_is_no_folder_of_a_sweep(tmp_path, monkeypatch):
  # JAX has started in this process.
  monkeypatch.setattr(command, '_start_jax', lambda *_: None)
  (tmp_path / 'file').touch()
  for place in (tmp_path / 'file', tmp_path / 'file' / 'below'):
    for flags in ([], ['--status']):
      with pytest.raises(SystemExit, match='file is not a folder.*--config.wo'):
        command.main(['deep_unlearn', f'--workdir={place}', *flags])
  with pytest.raises(SystemExit, match="'/proc/new' cannot be written.*choose"):
    command.main(['deep_unlearn', '--workdir=/proc/new'])


def test_a_mistake_in_python_names_the_value_and_the_remedy():
  for scale, fields, words in (
    (3, {}, 'unknown scale 3.*choose'),
    ('digits', {'all': {3: 3}}, 'config.all: 3 is no field.*dotted names'),
    ('digits', {'all': {'workdir': 'x'}}, 'config.all.workdir is set by'),
    ('digits', {'cells': 'digits_resnet18'}, 'config.cells = .*--only=CELL'),
    (
      'digits',
      {'cells': {'digits_resnet': {}}},
      "did you mean 'digits_resnet1",
    ),
    ('digits', {'cells': {'digits_tiny': {'seed': 3}}}, 'in sections'),
    ('digits', {'cells': {'digits_tiny': {'all': 3}}}, 'all = 3; give fields'),
    (
      'digits',
      {'cells': {'digits_resnet18': {'all': {'train.epochs': 3}}}},
      'config.cells.digits_resnet18.all.train.epochs',
    ),
    ('digits', {'methods': ['ft', 3]}, "config.methods.*'ft', 3.*give names"),
  ):
    with pytest.raises(ValueError, match=words):
      jaxmu.sweep(scale, **fields)


@pytest.mark.parametrize('argv, words', MISTAKES)
def test_a_mistake_names_the_value_and_the_remedy(argv, words):
  with pytest.raises(ValueError) as error:
    design.from_config(command.read(argv).config)
  for word in words:
    assert word in str(error.value)


def _setting(path, method, values, data='digits'):
  content = {'method': method, 'data': data, 'model': 'tiny', 'hparams': values}
  return tuned.write(path, content)


def test_methods_with_an_earlier_setting_are_not_searched(tmp_path):
  old = tmp_path / 'old' / 'digits_tiny'
  epochs = {'num_epochs': 7}
  values = {m: hp.defaults(methods.get(m).Hparams) for m in ('ft', 'ga')}
  # One file of published results, and one of a sweep.
  ft = _setting(old / 'search/settings/ft.json', 'ft', values['ft'] | epochs)
  changes = {'settings': str(tmp_path / 'old'), 'studies': ('search', 'main')}
  config = small_sweep.config(tmp_path / 'new', **changes)
  search, main = design.from_config(config).studies
  assert (search.methods, main.methods) == (('ga',), ('ft', 'ga'))
  units = graph.build(design.from_config(config)).units
  text = plan.text(design.from_config(config), graph.Graph([*units.values()]))
  assert text.endswith(
    '1 of 2 settings in config.settings; the others are searched'
  )
  assert {m: one.path for m, one in main.earlier.items()} == {'ft': ft}
  assert not search.earlier
  assert main.ready(['ft']).unlearners[0].hparams['num_epochs'] == 7
  assert [u.label for u in units.values() if u.kind == 'search'] == ['ga']
  # A new setting makes these missing, in the report too; the rest is as it was.
  keys = status.Keys(design.from_config(config))
  before = {name: keys(unit) for name, unit in units.items()}
  _setting(ft, 'ft', values['ft'] | {'num_epochs': 8})
  # A sweep that has begun keeps its setting.
  assert main.ready(['ft']).unlearners[0].hparams['num_epochs'] == 7
  keys = status.Keys(design.from_config(config))
  changed = [name for name, unit in units.items() if keys(unit) != before[name]]
  assert changed == [
    f'digits_tiny/main/{name}'
    for name in ('unlearned/ft', 'predictions/ft', 'report')
  ]

  alone = {**config, 'studies': 'main'}
  with pytest.raises(ValueError, match='no setting of ga; add search to'):
    design.from_config(alone)
  _setting(tuned.folder(old / 'search', 'ga') / tuned.NAME, 'ga', values['ga'])
  for one in (config, alone):
    sweep = design.from_config(one)
    (main,) = sweep.studies
    assert main.kind == 'main' and {*main.earlier} == {'ft', 'ga'}
    last = plan.text(sweep, graph.build(sweep)).splitlines()[-1]
    assert last == 'found   2 of 2 settings in config.settings'


def test_the_package_has_settings_by_name(tmp_path, monkeypatch):
  monkeypatch.chdir(tmp_path)
  sweep = design.from_config(
    {**design.deep_unlearn('laptop'), 'settings': 'laptop'}
  )
  found = {s.name: s.earlier for s in sweep.studies if s.earlier}
  main = found['digits_resnet18/main']
  assert len(main) == 18
  assert design.PUBLISHED == published.ROOT
  folder = design.PUBLISHED / 'laptop' / 'digits_resnet18' / 'search'
  assert main['ft'].path == folder / 'settings' / 'ft.json'


def test_a_wrong_folder_of_settings_is_refused(tmp_path):
  new = tmp_path / 'new'
  new.mkdir()

  def sweep(folder):
    return design.from_config(small_sweep.config(new, settings=folder))

  with pytest.raises(ValueError, match='/no.* is no folder; give that of a sw'):
    sweep(str(tmp_path / 'no'))
  with pytest.raises(ValueError, match='config.settings = 3 is no folder'):
    sweep(3)
  with pytest.raises(ValueError, match='is the folder of this sweep'):
    sweep(str(tmp_path / 'new'))
  with pytest.raises(ValueError, match='has no setting for this sweep; give'):
    sweep(tmp_path)
  path = tmp_path / 'digits_tiny' / 'search' / 'settings' / 'ft.json'
  values = hp.defaults(methods.get('ft').Hparams)
  _setting(path, 'ft', values, data='mnist')
  with pytest.raises(
    ValueError, match='for tiny on mnist, not for tiny on digits; remove it to'
  ):
    sweep(str(tmp_path))
  path.write_text('[]')
  with pytest.raises(ValueError, match='ft.json'):
    sweep(str(tmp_path))
  # Published settings are compared with their checksums.
  folder = tmp_path / 'digits_tiny' / 'search'
  _setting(path, 'ft', values)
  gone = _setting(folder / 'settings' / 'ga.json', 'ga', {})
  checksums.write(folder, [path, gone])
  gone.unlink()
  sweep(str(tmp_path))
  _setting(path, 'ft', values | {'num_epochs': 8})
  with pytest.raises(
    ValueError, match='ft.json was changed after it was published; copy it ag'
  ):
    sweep(str(tmp_path))


def test_a_setting_of_another_recipe_is_named_before_training(tmp_path):
  content = {
    'method': 'ft',
    'data': 'digits',
    'model': 'tiny',
    'hparams': hp.defaults(methods.get('ft').Hparams),
    'train': {'num_epochs': 30},
  }
  old = tmp_path / 'old'
  tuned.write(old / 'digits_tiny/search/settings/ft.json', content)
  config = small_sweep.config(tmp_path, methods='ft', settings=str(old))
  with pytest.warns(UserWarning, match=r'num_epochs = 30 \(the job: 2\)'):
    design.from_config(config)


@pytest.mark.parametrize('study', ['search', 'main'])
def test_fields_of_a_search_may_be_given_where_nothing_is_searched(
  tmp_path, study
):
  values = hp.defaults(methods.get('ft').Hparams)
  for kind in ('search', 'ulira_search'):
    path = tmp_path / 'old' / 'digits_tiny' / kind / 'settings' / 'ft.json'
    _setting(path, 'ft', values)
  argv = [
    '--config=deep_unlearn',
    *('--config.models=tiny', '--config.methods=ft'),
    *('--config.ulira_models=tiny', f'--config.settings={tmp_path / "old"}'),
    f'--config.{study}.search.trials=3',
    '--config.ulira.splits.num_splits=8',
  ]
  config = command.read(argv).config
  assert config[study]['search.trials'] == 3
  assert config['ulira']['splits.num_splits'] == 8
  # Nor does a sweep without a method of U-LiRA lose its fields.
  config = command.read([*argv[:2], '--config.methods=ga', argv[-1]]).config
  assert config['ulira']['splits.num_splits'] == 8


def test_a_prepared_set_takes_the_settings_of_its_size(tmp_path, monkeypatch):
  """Its jobs are planned with its own sizes.

  It is read once for all of them, and again when its files have changed.
  """
  read, load = [], datasets.load
  monkeypatch.setattr(
    datasets, 'load', lambda *args, **kw: read.append(args) or load(*args, **kw)
  )
  rng = np.random.default_rng(0)
  folder = tmp_path / 'data' / 'leaves'
  folder.mkdir(parents=True)
  for part, count in (('train', 320), ('test', 80)):
    image = rng.integers(0, 256, (count, 16, 16, 3), np.uint8)
    label = rng.integers(0, 4, count)
    np.savez(folder / f'{part}.npz', image=image, label=label)
  (folder / 'meta.json').write_text('{"size": 16}')
  changes = {'data.folder': str(tmp_path / 'data'), 'run.chunk': 1}
  config = small_sweep.config(
    *(tmp_path / 'sweep',),
    data=('digits', 'leaves'),
    ulira_data=('leaves',),
    all={**changes, 'run.devices': 1},
    ulira={},
  )
  sweep = design.from_config(config)
  main, ulira = (s for s in sweep.studies[2:] if not s.searches)
  for study in (main, ulira):
    assert study.settings.data.name == 'leaves'
    assert study.settings.train == sweep.studies[0].settings.train
    assert study.settings.splits.pool == 0
  assert plan.set_sizes(main.settings).classes == 4
  plan.work(sweep, graph.build(sweep))
  assert read == [('leaves',)]
  os.utime(folder / 'train.npz', (1, 1))
  plan.set_sizes(main.settings)
  assert read == [('leaves',)] * 2
  with pytest.raises(ValueError, match="did you mean 'leaves'.*/data"):
    design.from_config({**config, 'data': 'leafs'})
