"""The GPU benchmark, as far as it can be tested without a GPU."""

import types

import numpy as np
import pytest

from jaxmu.models.conv import choose
from jaxmu.study import recipes


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


def test_the_fastest_way_is_named_with_its_settings(load, tmp_path):
  gpu, gpu_rows = load('gpu'), load('gpu_rows')
  bench = object.__new__(gpu.Bench)
  bench.rows = gpu_rows.Rows(tmp_path / 'gpu.csv')
  assert bench.conclusion('tf32') == 'tf32: not measured'
  for conv, chunk, speed in [
    ('library', 1, '1000'),
    ('patches', 8, '12000'),
    ('auto', 8, '2000'),
    ('library', 8, ''),
  ]:
    work = lambda speed=speed: {'images_per_s': speed}  # noqa: E731
    bench.rows.add(gpu.Way(conv, chunk).name, 'tf32', work, chunk)
  text = bench.conclusion('tf32')
  assert 'conv=patches in chunks of 8, 12,000 images/s' in text
  assert '--config.model.options.conv=patches --config.run.chunk=8' in text
  assert bench.conclusion('float32') == 'float32: not measured'


def test_the_settings_named_are_those_of_a_job(load):
  for conv in load('gpu').FORMULATIONS:
    choose.check_impl(conv)
  config = recipes.job_config('msg')
  assert 'chunk' in config['run'] and 'precision' in config['model']


def test_kernels_of_a_compiled_program_are_counted(load):
  text = """ENTRY %main (x: f32[8]) -> f32[8] {
  %a = (f32[8]{0}, u8[0]{0}) custom-call(%x), feature_group_count=8, \
custom_call_target="__cudnn$convForward"
  %b = (f32[8]{0}, u8[0]{0}) custom-call(%x), \
custom_call_target="__cudnn$convBackwardFilter"
  %c = f32[8]{0} convolution(%x, %y), dim_labels=b01f_01io->b01f
  %d = f32[8]{0} dot(%x, %y), lhs_contracting_dims={1}
  %e = (f32[8]{0}, s8[4]{0}) custom-call(%x), \
custom_call_target="__cublas$lt$matmul"
  %f = (s32[]) while(%x), condition=%c, body=%b
  ROOT %g = f32[8]{0} add(%x, %x)
}
"""
  assert load('aot_gpu').kernels(text) == {
    'grouped': 1,
    'convolutions': 2,
    'products': 2,
    'loops': 1,
  }


def test_fused_networks_compute_what_each_computes_alone(load):
  torch = pytest.importorskip('torch', reason='torch is not installed')
  fused, resnet = load('pytorch.fused'), load('pytorch.resnet')
  torch.manual_seed(0)
  alone = [resnet.ResNet18(10, 4).double() for _ in range(3)]
  states = [network.state_dict() for network in alone]
  together = fused.fuse(alone[0], 3).double()
  load('torch_backend').load_weights(
    together,
    {
      name: torch.cat([state[name] for state in states])
      for name in states[0]
      if 'num_batches_tracked' not in name
    },
  )
  images = torch.randn(8, 3, 3, 32, 32).double()
  logits = together(images.flatten(1, 2)).unflatten(1, (3, -1))
  logits.square().sum().backward()
  for number, network in enumerate(alone):
    expected = network(images[:, number])
    expected.square().sum().backward()
    gradients = together.conv1.weight.grad.chunk(3)[number]
    variance = together.layer4[1].bn2.running_var.chunk(3)[number]
    for found, known in [
      (logits[:, number], expected),
      (gradients, network.conv1.weight.grad),
      (variance, network.layer4[1].bn2.running_var),
    ]:
      torch.testing.assert_close(found, known, rtol=1e-6, atol=1e-8)


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
