"""The programs of every method, compiled for a TPU that is not there.

Nothing runs, so these tests say nothing of numbers; those of a CPU do. They
need `pip install 'jaxmu[aot]'`, see `.ci/aot`.
"""

import dataclasses
import os

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxmu import hparams as hp
from jaxmu import methods, models, platforms, population
from jaxmu.study import compiled, forecast
from jaxmu.study import job as job_lib
from jaxmu.types import Dataset, Split, Task, Transform
from tests import program_text
from tests.study import small_job

pytestmark = [pytest.mark.aot, pytest.mark.xdist_group('aot')]

IMAGES, BATCH, MEMBERS = 10_000, 64, 4
QUICK = ('msg',)


@pytest.fixture(scope='module', autouse=True)
def _without_cache():
  """The compiler of a TPU cannot read the programs that JAX stores."""
  before = jax.config.jax_enable_compilation_cache
  jax.config.update('jax_enable_compilation_cache', False)
  yield
  jax.config.update('jax_enable_compilation_cache', before)


def _machine(name):
  try:
    return platforms.machine(name)
  except ImportError as error:
    pytest.skip(str(error))


@pytest.fixture(scope='module')
def v5e():
  return _machine('v5e')


def _lower(name, machine, model='tiny', side=8, **options):
  """Lower the programs of a method; all inputs are shapes."""
  array = jax.ShapeDtypeStruct
  method = methods.get(name)
  network = models.build(
    model, num_classes=10, image_shape=(side, side, 3), options=options
  )
  task = Task(
    Dataset(
      array((IMAGES, side, side, 3), jnp.uint8), array((IMAGES,), jnp.int32)
    ),
    network,
    Transform((0.5,) * 3, (0.3,) * 3, flip=True, crop_padding=2),
  )
  layout = population.Layout(len(machine.devices), 1, machine.devices)
  values = hp.defaults(method.Hparams)
  sizes = {key: BATCH for key in values if 'batch_size' in key}
  hparams = hp.from_config(method.Hparams, {**values, **sizes})
  start = jax.eval_shape(
    lambda key: models.init(network, key, (side, side, 3)), jax.random.key(0)
  )
  return population.Trainer(method, task, layout).lower(
    [hparams] * MEMBERS,
    jax.eval_shape(lambda: jax.random.split(jax.random.key(0), MEMBERS)),
    Split(*(array((MEMBERS, n), jnp.int32) for n in (8 * BATCH, 128, 128))),
    jax.tree.map(lambda x: array((MEMBERS, *x.shape), x.dtype), start),
  )


def _check(lowered, most):
  """Compile, and check what must hold of every program."""
  for one in lowered.programs:
    program = one.compile()
    text = program.as_text()
    assert not program_text.collectives(text)
    assert not program_text.host_contacts(text)
    assert compiled.cycles(text) > 0
    assert program.memory_analysis().temp_size_in_bytes < most


@pytest.mark.parametrize(
  'name',
  [
    pytest.param(name, marks=[] if name in QUICK else [pytest.mark.slow])
    for name in methods.METHODS
  ],
)
def test_programs_of_every_method(v5e, name):
  _check(_lower(name, v5e), 100e6)


@pytest.mark.slow
@pytest.mark.parametrize('name', ['original', 'msg'])
@pytest.mark.parametrize(
  ('model', 'options'),
  [('resnet18', {'width': 16}), ('vit11m', {})],
)
def test_programs_of_larger_networks(v5e, name, model, options):
  _check(_lower(name, v5e, model, 32, **options), 1e9)


@pytest.mark.slow
@pytest.mark.parametrize('side', [32, 224])
def test_the_data_set_is_not_copied(v5e, side):
  lowered = _lower('original', v5e, side=side)
  shape = f'u8[{IMAGES},{side * side * 3 // 128},128]'
  for program in (lowered.init.compile(), lowered.epoch.compile()):
    assert not program_text.copies(program.as_text(), shape)
  assert shape in program.as_text()
  assert f'u8[{IMAGES},{side}' not in program.as_text()


def test_devices_do_not_communicate():
  _check(_lower('original', _machine('v5e:2x2')), 100e6)


def test_plan_for_a_tpu(v5e, tmp_path):
  before = dict(os.environ)
  job = job_lib.open_job(
    small_job.make(tmp_path / 'job', run__devices=1, run__chunk=1)
  )
  job = dataclasses.replace(
    job, populations={'original': job.populations['original']}
  )
  text = forecast.plan_text(job, v5e)
  assert dict(os.environ) == before
  row = text.split('train original')[1].split('\n')[0].split()
  assert row[:2] == ['8', '1']
  numbers = np.array([float(one.replace(',', '')) for one in row[-4:]])
  assert (numbers[:3] > 0).all()
  assert 'does not fit' not in text
  assert jax.default_backend() == 'cpu'
