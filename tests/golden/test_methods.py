"""Every method against recorded runs of the reference, number for number.

A plain `pytest` replays a few runs; naming this folder replays all of them,
`pytest tests/golden --golden=DIR` those of another set of the same form.
"""

import pathlib

import jax
import numpy as np

from jaxmu import methods
from tests.golden import extras, recipes, replay, rules

RELATIVE = 1e-8  # of losses, learning rates, logits, in float64
QUICK = ('R', 'NGPlus', 'PRMQ')
NOT_METHODS = ('metrics', 'NegGrad')  # NegGrad is not in the benchmark


def pytest_generate_tests(metafunc):
  config = metafunc.config
  folder = pathlib.Path(config.getoption('--golden'))
  names = [n for n in rules.index(folder) if n not in NOT_METHODS]
  if not any('golden' in str(arg) for arg in config.args):
    names = [n for n in names if n in QUICK]
  if 'name' in metafunc.fixturenames:
    metafunc.parametrize('name', sorted(names))


def _replay(recording, **options):
  recipe = recipes.RECIPES[recording.kind]
  return replay.run(
    recording,
    methods.get(recipe.method),
    recipes.hyper_parameters(recording, recipe),
    recipe.draws(recording),
    steps=recipe.steps,
    **options,
  )


def _labels(recording, ours):
  """Pair the recorded snapshots with ours; none may be left over."""
  recipe = recipes.RECIPES[recording.kind]
  pairs = {'final': 'final', **recipe.labels}
  count = recipe.before
  for epoch, losses in enumerate(ours.epochs):
    count += len(losses)
    pairs[f'step{count:03d}'] = f'epoch{epoch}'
  seen = {'start', *pairs, *recipe.inside(recording)}
  missing = set(recording.meta['snapshots']) - seen
  assert not missing, missing
  return {k: v for k, v in pairs.items() if f'fp_{k}' in recording.arrays}


def _assert_same_model(recording, variables, label):
  ours = replay.fingerprints(recording.model, variables)
  golden = recording.arrays[f'fp_{label}']
  scale = golden[:, :1] + 1e-3
  worst = np.max(np.abs(ours - golden) / scale)
  assert worst <= RELATIVE, (label, worst)
  np.testing.assert_allclose(
    replay.probe_logits(recording, variables),
    recording.arrays[f'logits_{label}'],
    rtol=RELATIVE,
    atol=1e-10,
    err_msg=label,
  )


def test_run_agrees_in_float64(name, golden_folder):
  with jax.enable_x64(True):
    recording = replay.read(golden_folder, name)
    arrays = recording.arrays
    _assert_same_model(recording, recording.problem.original, 'start')
    ours = _replay(recording)
    before = recipes.RECIPES[recording.kind].before
    if 'step_loss' in arrays:
      losses, rates = np.concatenate(ours.epochs), np.concatenate(ours.rates)
      for found, key in ((losses, 'step_loss'), (rates, 'step_lr')):
        golden = arrays[key][before:]
        np.testing.assert_allclose(found, golden, rtol=RELATIVE, err_msg=key)
    for label, place in _labels(recording, ours).items():
      _assert_same_model(recording, ours.snapshots[place], label)
    _assert_extras(recording, ours)


def _assert_extras(recording, ours):
  checks = extras.EXTRAS.get(recording.kind, lambda *_: {})(recording, ours)
  for what, (found, golden) in checks.items():
    found, golden = np.asarray(found), np.asarray(golden)
    if found.dtype.kind in 'biu':
      np.testing.assert_array_equal(found, golden, err_msg=what)
    elif what.endswith('_fp'):
      worst = np.max(np.abs(found - golden) / (golden[:, :1] + 1e-3))
      assert worst <= RELATIVE, (what, worst)
    else:
      np.testing.assert_allclose(found, golden, RELATIVE, 1e-10, err_msg=what)
