"""Default programs for a GPU, lowered on a CPU; nothing is compiled or run."""

import re

import jax
import pytest

from jaxmu import hparams as hp
from jaxmu import layout as layout_lib
from jaxmu import methods, models, platforms, population
from jaxmu.testing import tiny_problem

MEMBERS = 8
NETWORKS = {
  'tiny': (8, {}),
  'resnet18': (32, {'width': 8}),
  # MBConv's and all other depthwise convolutions are sums of products.
  'vit11m': (32, {'widths': (8, 32, 32, 32), 'depths': (1, 1, 1, 1)}),
}


def _texts(network, name):
  """Lower the programs of a training, and those of predictions."""
  side, options = NETWORKS[network]
  task, method = tiny_problem.task(), methods.get(name)
  model = models.build(
    network,
    num_classes=tiny_problem.CLASSES,
    image_shape=(side, side, 3),
    options=options,
  )
  images = jax.ShapeDtypeStruct((tiny_problem.IMAGES, side, side, 3), 'uint8')
  task = task.replace(model=model, dataset=task.dataset.replace(image=images))
  keys = tiny_problem.keys(MEMBERS)
  start = jax.eval_shape(
    jax.vmap(lambda key: models.init(model, key, (side, side, 3))), keys
  )
  hparams = hp.from_config(method.Hparams, hp.defaults(method.Hparams))
  layout = population.Layout(1, layout_lib.default_chunk())
  loaded = population.Trainer(method, task, layout).lower(
    [hparams] * MEMBERS, keys, tiny_problem.splits(MEMBERS), start
  )
  scores = population.Predictor(task, layout).lower(start)
  return [program.as_text() for program in (*loaded.programs, scores)]


def _grouped(pairs):
  """Return the pairs with a convolution in groups, and how many have any."""
  found, convolutions = set(), 0
  with platforms.target('gpu'):
    assert layout_lib.default_chunk() > 1
    for pair in pairs:
      for text in _texts(*pair):
        counts = re.findall(r'(?:feature|batch)_group_count = (\d+)', text)
        convolutions += len(counts)
        if {*counts} - {'1'}:
          found.add(pair)
  return found, convolutions


def test_no_network_has_a_grouped_convolution():
  found, _ = _grouped((network, 'retrain') for network in NETWORKS)
  assert not found


@pytest.mark.slow
def test_no_method_has_a_grouped_convolution():
  found, _ = _grouped(('tiny', name) for name in methods.METHODS)
  assert not found


def test_a_grouped_convolution_would_be_seen(monkeypatch):
  monkeypatch.setitem(NETWORKS, 'tiny', (8, {'conv': 'library'}))
  monkeypatch.setattr(jax.custom_batching, 'sequential_vmap', lambda one: one)
  found, convolutions = _grouped([('tiny', 'retrain')])
  assert found and convolutions
