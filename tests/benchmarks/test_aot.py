"""What runs on a TPU follows the table of the compiler's estimates."""

import jax.numpy as jnp
import pytest

from jaxmu import platforms
from jaxmu.models.conv import choose, fastest
from jaxmu.study import forecast, planner


def test_the_installed_choices_are_those_of_the_table(load):
  aot = load('aot')
  rows = aot.table.read(aot.TABLE)
  assert rows
  assert aot.best(rows, depthwise=False) == fastest.TPU
  assert aot.best(rows, depthwise=True) == fastest.TPU_DEPTHWISE


def test_the_least_mean_of_relative_cycles_wins(load):
  aot = load('aot')
  layer = fastest.Layer(4, 8, 8, 3, 1)
  cycles = {
    'v5e': {'library': 2, 'patches': 1},
    'v6e': {'library': 1, 'patches': 4},
  }
  rows = [
    {**layer._asdict(), 'machine': machine, 'formulation': impl}
    | {'chunk': '1', 'depthwise': '', 'kilocycles': str(one)}
    for machine, known in cycles.items()
    for impl, one in known.items()
  ]
  assert aot.best(rows, depthwise=False) == {layer: 'library'}
  assert aot.best(rows[:2], depthwise=False) == {layer: 'patches'}
  assert aot.best(rows, depthwise=True) == {}


def test_a_layer_that_is_not_listed_follows_the_most_similar_one():
  known = {
    fastest.Layer(1, 512, 512, 3, 1): 'dense',
    fastest.Layer(8, 64, 64, 3, 1): 'library',
    fastest.Layer(8, 64, 64, 1, 2): 'patches',
  }
  layers = {
    fastest.Layer(56, 64, 64, 3, 1): 'library',
    fastest.Layer(1, 16, 16, 3, 1): 'dense',
    fastest.Layer(1, 512, 512, 1, 1): 'patches',
    fastest.Layer(8, 3, 64, 7, 2): 'library',
  }
  assert {one: fastest.formulation(one, known) for one in layers} == layers


@pytest.mark.parametrize(
  ('side', 'taps', 'expected'),
  [(8, 1, 'patches'), (1, 3, 'patches'), (8, 3, 'library'), (56, 3, 'library')],
)
def test_choices_on_a_tpu(side, taps, expected):
  with platforms.target('tpu'):
    shapes = (256, side, side, 64), (taps, taps, 64, 64)
    assert choose.choose(*shapes, 1, taps // 2, jnp.bfloat16) == expected


def test_cycles_are_relative_to_original_training(load):
  base = {'machine': 'v5e', 'model': 'resnet18 width 64', 'models': '8'}
  rows = [
    {**base, 'method': 'original', 'megacycles': '2.0'},
    {**base, 'machine': 'v6e', 'method': 'original', 'megacycles': '1.0'},
  ]
  msg = {**base, 'method': 'msg', 'megacycles': '2.5'}
  relative = load('aot_steps').relative
  assert relative(msg, rows) == '1.25'
  assert relative({**msg, 'machine': 'v6e'}, rows) == '2.50'
  assert relative(rows[0], []) == '1.00'


def test_the_lines_of_a_plan_are_read(load):
  step = planner.Step('train original', 8, 16, 3e6, 0)
  line = forecast._line(
    forecast.Forecast(step, 1, 7.216e8, 2.5e9, 1.2e10, 1.75e9, 2.0), 4.0, 1
  )
  plan = load('aot_plan')
  found = dict(zip(plan.COLUMNS, plan.ROW.match(line).groups(), strict=True))
  assert found == {
    'stage': 'train original',
    'models': '16',
    'chunk': '1',
    'memory': '721.6 MB',
    'flops': '2.5e+09',
    'bytes': '12.0 GB',
    'gcycles': '1.75',
    'images_per_s': '250,000',
    'models_per_h': '14,400',
    'device_hours': '0.0011',
  }
