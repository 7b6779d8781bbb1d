"""The choice of formulations follows the table of measurements."""

import csv

import jax.numpy as jnp

from jaxmu import platforms
from jaxmu.models.conv import choose

SLOWER = 1.3  # than the fastest formulation, at most


def test_auto_takes_what_was_measured_fastest(load):
  layers = load('layers')
  with layers.TABLE.open() as file:
    rows = list(csv.DictReader(file))
  measured, wrong = {}, []
  for row in rows:
    if row['layer'] != 'pooling':
      case = tuple(row[name] for name in layers.CASE)
      measured.setdefault(case, []).append(row)
  assert {case[0] for case in measured} == {'32', '64', '224'}
  for case, tried in measured.items():
    side, width, batch = map(int, case[:3])
    listed = layers.network(width, side) + layers.stems(side)
    (layer,) = [one for one in listed if one.name == case[3]]
    with platforms.target('cpu'):
      chosen = choose.choose(
        (batch, layer.side, layer.side, layer.channels),
        (layer.taps, layer.taps, layer.channels, layer.features),
        layer.stride,
        layer.taps // 2,
        jnp.float32,
      )
    marked = [row['formulation'] for row in tried if row['auto']]
    spent = {row['formulation']: float(row['milliseconds']) for row in tried}
    if marked != [chosen] or spent[chosen] > SLOWER * min(spent.values()):
      wrong.append((case, chosen, spent))
  assert not wrong
