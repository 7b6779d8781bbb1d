"""The code on the page about custom models runs unchanged."""

import pathlib
import re

import jax
import numpy as np

from jaxmu import models
from jaxmu.models import checkpoints

PAGE = pathlib.Path(__file__).parents[2] / 'docs' / 'own_model.md'


def _blocks() -> list[str]:
  # The small network takes seconds instead of minutes.
  text = PAGE.read_text().replace("'resnet18'", "'tiny'")
  return re.findall(r'^```python\n(.*?)^```$', text, re.M | re.S)


def _same(a, b) -> bool:
  pairs = zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True)
  return all(np.array_equal(x, y) for x, y in pairs)


def test_every_block_runs_in_order(tmp_path, monkeypatch):
  monkeypatch.chdir(tmp_path)
  tiny = models.build('tiny', num_classes=10)
  for seed in range(3):
    variables = models.init(tiny, jax.random.key(seed), (16, 16, 3))
    checkpoints.write(tiny, variables, f'seed{seed}.pth')
  blocks = _blocks()
  assert len(blocks) == 4
  # About thirty lines to unlearn with a custom network.
  assert sum(bool(line.strip()) for line in blocks[1].splitlines()) < 30
  names: dict = {}
  for block in blocks[:2]:
    exec(block, names)
  variables, unlearned = names['variables'], names['unlearned']
  assert jax.tree.structure(unlearned) == jax.tree.structure(variables)
  assert not _same(unlearned, variables)
  logits = names['Net']().apply(
    unlearned, np.zeros((2, 16, 16, 3), np.float32), train=False
  )
  assert logits.shape == (2, 10) and np.isfinite(logits).all()
  assert len(names['infos']) == 2

  for block in blocks[2:]:
    exec(block, names)
  member = jax.tree.map(lambda x: x[0], names['trained'].variables)
  for path in ('unlearned0.pth', 'unlearned0.safetensors'):
    assert not _same(checkpoints.read(tiny, path), names['original'])
  assert _same(checkpoints.read(tiny, 'unlearned0.safetensors'), member)
  assert names['trained'].losses.shape == (3, 2)
