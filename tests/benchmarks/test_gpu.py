"""The GPU benchmark, as far as it can be tested without a GPU."""

import types

import numpy as np
import pytest


def test_rows_survive_and_failed_ones_are_tried_again(load, tmp_path):
  gpu_rows = load('gpu_rows')
  path, calls = tmp_path / 'gpu.csv', []

  def work():
    calls.append(1)
    if len(calls) == 1:
      raise RuntimeError('Traceback\nRESOURCE_EXHAUSTED: too large')
    return {'images_per_s': '7'}

  rows = gpu_rows.Rows(path)
  rows.hardware = 'Chip'
  assert 'RESOURCE_EXHAUSTED' in rows.add('jaxmu', 'tf32', work, 8)['note']
  rows.add('jaxmu', 'tf32', lambda: {'images_per_s': '9'}, 16)
  again = gpu_rows.Rows(path)
  assert again.add('jaxmu', 'tf32', work, 8)['images_per_s'] == '7'
  assert again.add('jaxmu', 'tf32', work, 16)['images_per_s'] == '9'
  assert len(calls) == 2
  text = path.read_text()
  assert 'failed' not in text and 'Chip' in text
  late = gpu_rows.Rows(path, end=0)
  assert late.add('jaxmu', 'tf32', work, 8)['images_per_s'] == '7'
  assert late.add('jaxmu', 'tf32', work, 32) is None
  assert late.late == 1 and len(calls) == 2


def test_speeds_and_ratios_are_per_image(load):
  gpu = load('gpu')
  found = gpu.speeds(1000, [1.0, 2.0, 4.0])
  assert found['images_per_s'] == '500'
  assert (found['low'], found['high']) == ('250', '1000')
  assert found['models_per_hour'] == f'{500 * 3600 / (182 * 38_250):.1f}'
  found = gpu.ratio(100, [1.0, 3.0, 2.0], 200, [1.0, 1.0, 1.0])
  assert found['speed_up'] == '4.00'
  assert (found['ratio_low'], found['ratio_high']) == ('2.00', '6.00')


def test_kernels_are_sorted_by_kind(load):
  kernels = load('kernels')
  expected = {
    'sm80_xmma_fprop_implicit_gemm_bf16': 'convolutions',
    'nvjet_hsh_128x256': 'products',
    'gemm_fusion_dot_12': 'products',
    'loop_convert_fusion_3': 'other',
    'input_reduce_fusion': 'sums',
    'MemcpyD2D': 'copies',
  }
  assert {name: kernels.kind(name) for name in expected} == expected
  text = kernels.summary({'nvjet': 0.5, 'loop_add': 0.25}, wall=1.0)
  assert text.startswith('products 50 %, other 25 %, idle 25 %; nvjet 50 %')


def test_only_streams_of_a_device_count(load):
  event = types.SimpleNamespace(name='gemm', duration_ns=5e8)
  line = lambda name: types.SimpleNamespace(name=name, events=[event])  # noqa: E731
  plane = lambda name, *lines: types.SimpleNamespace(name=name, lines=lines)  # noqa: E731
  host = plane('/host:CPU', line('tf_XLA'))
  gpu = plane('/device:GPU:0', line('Stream #7'), line('XLA Ops'))
  data = types.SimpleNamespace(planes=[host, gpu])
  assert load('kernels').times(data) == {'gemm': 0.5}


@pytest.mark.slow
@pytest.mark.xdist_group('gpu')
def test_side_of_jaxmu_takes_every_step(load, tmp_path):
  gpu, gpu_jax = load('gpu'), load('gpu_jax')
  workload = gpu.population(gpu.SMALL, 'float32', 2)
  backend = gpu_jax.JaxGpu(workload, 2)
  losses = backend.losses()
  assert losses.shape == (2, 1) and np.isfinite(losses).all()
  backend.run()
  facts = backend.facts()
  assert facts['bytes_per_member'] > 0 and facts['live_flops'] > 0
  assert '%' in backend.profile()


def test_work_of_an_example_leaves_out_taps_on_padding(load):
  gpu, flops = load('gpu'), load('flops')
  jax_backend = load('jax_backend')
  model = jax_backend.task(gpu.population(gpu.Scale(), 'bfloat16', 1)).model
  counts = flops.training_step(model)
  assert 2.1e8 < counts.naive < 2.3e8
  assert 1.2e8 < counts.live < 1.35e8


def test_ceiling_is_measured_in_every_precision(load):
  probe = load('gpu_jax').Probe()
  assert probe.platform() == 'cpu'
  for precision in load('gpu').PRECISIONS:
    assert probe.ceiling(64, precision) > 0


class _Side:
  """Answers as a backend would."""

  name = 'backend'

  def __init__(self, losses):
    self.losses = losses

  def call(self, method):
    assert method == 'losses'
    return [self.losses]


@pytest.mark.parametrize('value', [1.05, np.nan])
def test_wrong_losses_are_refused(load, value):
  bench = object.__new__(load('gpu').Bench)
  bench.expected = np.ones((2, 1))
  assert bench.apart(_Side(np.ones((1, 1))), 'float32')
  with pytest.raises(RuntimeError, match='differ from a CPU'):
    bench.apart(_Side(np.array([[1.0], [value]])), 'bfloat16')
