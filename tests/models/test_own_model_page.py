"""The code on the page about models of one's own runs as it stands."""

import pathlib
import re

import jax
import numpy as np
import pytest

from jaxmu import models
from jaxmu.models import pytorch

PAGE = pathlib.Path(__file__).parents[2] / 'docs' / 'own_model.md'


def _blocks() -> list[str]:
  text = PAGE.read_text().replace(
    "'resnet18'", "'tiny'"
  )  # seconds, not minutes
  return re.findall(r'^```python\n(.*?)^```$', text, re.M | re.S)


def _same(a, b) -> bool:
  pairs = zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True)
  return all(np.array_equal(x, y) for x, y in pairs)


def test_a_network_of_ones_own_is_unlearned():
  found: dict = {}
  own_network = _blocks()[0]
  # About thirty lines, of which nine are the network.
  assert sum(bool(line.strip()) for line in own_network.splitlines()) < 45
  exec(own_network, found)
  variables, unlearned = found['variables'], found['unlearned']
  assert jax.tree.structure(unlearned) == jax.tree.structure(variables)
  assert not _same(unlearned, variables)
  logits = found['Net']().apply(
    unlearned, np.zeros((2, 16, 16, 3), np.float32), train=False
  )
  assert logits.shape == (2, 10) and np.isfinite(logits).all()
  assert len(found['infos']) == 2


def test_checkpoints_go_in_and_come_out(tmp_path, monkeypatch):
  pytest.importorskip('safetensors', reason='safetensors is not installed')
  monkeypatch.chdir(tmp_path)
  model = models.build('tiny', num_classes=10)
  for seed in range(3):
    variables = models.init(model, jax.random.key(seed), (16, 16, 3))
    pytorch.save(model, variables, f'seed{seed}.safetensors')
  found: dict = {}
  for block in _blocks():
    exec(block, found)
  loaded = pytorch.load(model, 'unlearned0.safetensors')
  member = jax.tree.map(lambda x: x[0], found['trained'].variables)
  assert _same(loaded, member) and not _same(loaded, found['original'])
  assert found['trained'].losses.shape == (3, 2)
