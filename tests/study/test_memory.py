"""The predicted memory of a program follows XLA's account."""

import csv
import pathlib
import platform

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxmu import hparams as hp
from jaxmu import platforms, population
from jaxmu.methods import METHODS
from jaxmu.study import execution
from jaxmu.testing import tiny_problem

BATCH = 8


def _loaded(size, chunk):
  method = METHODS['retrain']
  hparams = hp.from_config(method.Hparams, {'num_epochs': 1, 'batch_size': 8})
  trainer = population.Trainer(
    method, tiny_problem.task(), population.Layout(1, chunk)
  )
  return trainer.load(
    [hparams] * size,
    tiny_problem.keys(size),
    tiny_problem.splits(size),
    tiny_problem.originals(size),
  )


def _need(loaded, chunk):
  resident = execution.bytes_of(loaded.members)
  return execution.estimate_memory(
    loaded.epoch, resident, len(loaded.epochs), chunk
  )


def test_the_parts_make_up_the_whole():
  loaded = _loaded(4, 1)
  expected = execution.total_bytes(
    loaded.epoch, execution.bytes_of(loaded.members), 9
  )
  assert _need(loaded, 1).total(4, 1, 9) == pytest.approx(expected)


def test_the_state_and_the_starting_model_are_resident():
  need = _need(_loaded(4, 1), 1)
  model = execution.bytes_of(tiny_problem.originals(1))
  weights = execution.bytes_of(tiny_problem.originals(1)['params'])
  # Donated: the state is counted once, not as argument and as result.
  assert need.copied == pytest.approx(model + weights, abs=16)
  # The starting model stays, though no epoch of this method reads it.
  index = 4 * sum(tiny_problem.SIZES.values())
  assert need.resident == pytest.approx(model + need.copied + index, abs=100)


def test_a_larger_shard_is_predicted_from_a_smaller_one():
  large = _loaded(6, 1)
  expected = execution.total_bytes(
    large.epoch, execution.bytes_of(large.members), 0
  )
  found = _need(_loaded(2, 1), 1).total(6, 1, 0)
  assert found == pytest.approx(expected, rel=0.2)


def test_copies_count_only_where_chunks_follow_each_other():
  need = execution.MemoryEstimate(resident=10.0, copied=5.0, working=100.0)
  assert need.total(4, 4, 1.0) == 1 + 4 * 10 + 100
  assert need.total(8, 4, 1.0) == 1 + 8 * 15 + 100


def test_sizes_are_those_of_the_arrays():
  tree = {'a': jnp.ones((3, 2)), 'b': np.zeros(5, np.uint8)}
  assert execution.bytes_of(tree) == 24 + 5


def test_predictions_with_their_margin_cover_what_was_measured():
  path = pathlib.Path(__file__).parents[2] / 'benchmarks' / 'memory.csv'
  with path.open() as file:
    rows = list(csv.DictReader(file))
  assert rows
  for row in rows:
    raised = float(row['predicted_mb']) * execution.memory_margin('cpu')
    assert raised >= float(row['measured_mb'])


def test_a_program_is_refused_if_it_fits_without_the_margin_alone():
  loaded = _loaded(4, 1)
  resident = execution.bytes_of(loaded.members)
  needed = max(execution.total_bytes(p, resident, 0) for p in loaded.programs)
  # The size of the data is known, so no margin is added to it.
  data = 10 * needed
  execution.check_memory(loaded.programs, resident, data, 11.34 * needed)
  with pytest.raises(execution.DoesNotFit, match='allowed on each device'):
    execution.check_memory(loaded.programs, resident, data, 11.32 * needed)


def test_devices_of_a_cpu_share_its_memory(monkeypatch):
  monkeypatch.setattr(execution, 'machine_bytes', lambda: 1e10)
  assert jax.default_backend() == 'cpu'
  assert execution.memory_limit(1) == 0.9e10
  assert execution.memory_limit(2) == 0.45e10
  assert execution.memory_limit(4, gigabytes=2.0) == 0.5e9


def test_devices_of_a_cpu_share_the_data():
  data = np.zeros(1000, np.uint8)
  assert execution.shared_bytes(1, data) == 1000
  assert execution.shared_bytes(2, data) == 500
  with platforms.target('tpu'):
    assert execution.shared_bytes(2, data) == 1000


def test_this_machine_has_cores_and_memory():
  assert execution.cores() >= 1
  assert execution.processor()
  assert execution.machine_bytes() > 1e8


@pytest.mark.parametrize(
  'lines, name',
  [
    (
      'model name\t: AMD EPYC\ncpu family\t: 26\nmodel\t\t: 2\n'
      'flags\t\t: fpu avx avx2 avx512f\n\nmodel name\t: other\n',
      'AMD EPYC (family 26, model 2, avx512f)',
    ),
    (
      'model name\t: AMD EPYC\ncpu family\t: 25\nmodel\t\t: 1\n'
      'flags\t\t: fpu avx avx2\n',
      'AMD EPYC (family 25, model 1, avx2)',
    ),
    (
      'CPU implementer\t: 0x41\nCPU part\t: 0xd40\n',
      f'{platform.machine()} (implementer 0x41, part 0xd40)',
    ),
    ('', platform.machine()),
  ],
)
def test_a_processor_is_named_with_its_generation(tmp_path, lines, name):
  path = tmp_path / 'cpuinfo'
  path.write_text(lines)
  assert execution.processor(str(path)) == name


def test_a_processor_without_a_description_has_the_name_of_its_kind(tmp_path):
  assert execution.processor(str(tmp_path / 'none')) == platform.machine()
