"""Every method against recorded runs of the reference, number for number.

A plain `pytest` replays a few runs; naming this folder replays all of them,
`--recordings=others` all but the few; `pytest tests/golden --golden=DIR` those
of another set of the same form.
"""

import pathlib

import jax
import numpy as np
import pytest

from jaxmu import methods
from tests.golden import extras, recipes, replay, rules

RELATIVE = 1e-8  # of losses, learning rates, logits, in float64
FEW = ('R',)  # that every test run replays
NOT_METHODS = ('metrics',)
FIRST_STEPS = 5  # that are compared in float32
STRAY = 10  # times the reference's own difference between precisions
TWO_PHASES = ('SCRUB', 'FCS')  # whose epochs have a recorded model inside


def pytest_generate_tests(metafunc):
  if 'name' not in metafunc.fixturenames:
    return
  folder = pathlib.Path(metafunc.config.getoption('--golden'))
  runs = sorted(set(rules.index(folder)) - set(NOT_METHODS))
  wanted = _wanted(metafunc.config)
  if wanted != 'all':
    runs = [name for name in runs if (name in FEW) == (wanted == 'few')]
  if 'float32' in metafunc.function.__name__:
    runs = [name for name in runs if _has_single_precision(folder, name)]
  # What one run compiles is dropped before the next one begins.
  groups = [pytest.mark.xdist_group(f'recording {name}') for name in runs]
  pairs = zip(runs, groups, strict=True)
  cases = [pytest.param(name, marks=group) for name, group in pairs]
  metafunc.parametrize('name', cases)


def _wanted(config) -> str:
  """Return which recorded runs to replay: 'few', 'others' or 'all'."""
  named = any('golden' in str(arg) for arg in config.args)
  return config.getoption('--recordings') or ('all' if named else 'few')


def _has_single_precision(folder, name):
  with np.load(folder / f'{name}.npz') as stored:
    return 'f32_logits_start' in stored.files


def _replay(recording, **options):
  recipe = recipes.RECIPES[recording.kind]
  return replay.run(
    recording,
    recipe.own or methods.get(recipe.method),
    recipes.hyper_parameters(recording, recipe),
    recipe.draws(recording),
    steps=recipe.steps,
    part=recipe.part,
    noise=lambda hparams: recipes.noise(recording, recipe, hparams),
    **options,
  )


def _snapshots(recording, ours, before):
  """Pair our models with the recorded snapshots; none may be left over."""
  recipe = recipes.RECIPES[recording.kind]
  found = {k: ours.snapshots[v] for k, v in recipe.labels.items()}
  found['final'] = ours.snapshots['final']
  if before:
    found[f'step{before:03d}'] = ours.snapshots['init']
  count = before
  for epoch, losses in enumerate(ours.epochs):
    count += len(losses)
    found[f'step{count:03d}'] = ours.snapshots[f'epoch{epoch}']
  moments = extras.MOMENTS.get(recording.kind, lambda *_: {})
  found |= moments(recording, ours)
  missing = set(recording.meta['snapshots']) - {'start', *found}
  if recording.kind in TWO_PHASES:
    missing = {label for label in missing if not label.startswith('step')}
  assert not missing, missing
  return {k: v for k, v in found.items() if f'fp_{k}' in recording.arrays}


def _steps_of_init(recording, ours):
  """Count the recorded steps that come before the first epoch."""
  if recording.kind != 'FCS':
    return 0
  return -(-rules.SIZES['forget'] // ours.hparams.batch_size)


def _assert_same_model(recording, variables, label):
  ours = replay.fingerprints(recording.model, variables)
  _assert_fingerprints(ours, recording.arrays[f'fp_{label}'], label)
  np.testing.assert_allclose(
    replay.probe_logits(recording, variables),
    recording.arrays[f'logits_{label}'],
    rtol=RELATIVE,
    atol=1e-10,
    err_msg=label,
  )


def _assert_fingerprints(ours, golden, what):
  worst = np.max(np.abs(ours - golden) / (golden[:, :1] + 1e-3))
  assert worst <= RELATIVE, (what, worst)


def _assert_extras(recording, ours):
  checks = extras.EXTRAS.get(recording.kind, lambda *_: {})(recording, ours)
  for what, (found, golden) in checks.items():
    found, golden = np.asarray(found), np.asarray(golden)
    if found.dtype.kind in 'biu':
      np.testing.assert_array_equal(found, golden, err_msg=what)
    elif what.endswith('_fp'):
      _assert_fingerprints(found, golden, what)
    else:
      np.testing.assert_allclose(found, golden, RELATIVE, 1e-10, err_msg=what)


def test_run_agrees_in_float64(name, golden_folder):
  with jax.enable_x64(True):
    recording = replay.read(golden_folder, name)
    _assert_same_model(recording, recording.problem.start, 'start')
    ours = _replay(recording)
    losses = np.concatenate([*ours.epochs, []])
    rates = np.concatenate([*ours.rates, []])
    golden = recording.arrays.get('step_loss', np.zeros(0))
    before = _steps_of_init(recording, ours)
    assert before + len(losses) == len(golden)
    np.testing.assert_allclose(losses, golden[before:], RELATIVE)
    if len(golden):
      golden = recording.arrays['step_lr'][before:]
      np.testing.assert_allclose(rates, golden, RELATIVE)
    for label, variables in _snapshots(recording, ours, before).items():
      _assert_same_model(recording, variables, label)
    _assert_extras(recording, ours)


def test_first_steps_agree_in_float32(name, golden_folder):
  recording = replay.read(golden_folder, name, 'float32')
  arrays = recording.arrays
  logits = replay.probe_logits(recording, recording.problem.start)
  np.testing.assert_allclose(
    logits, arrays['logits_start'], rtol=1e-5, atol=1e-4
  )
  ours = _replay(recording, num_epochs=1)
  if 'step_loss' not in arrays:  # FF and IU, which take no steps
    golden, single = arrays['logits_final'], arrays['f32_logits_final']
    allowed = 1e-4 * np.max(np.abs(golden)) + STRAY * np.abs(single - golden)
    found = replay.probe_logits(recording, ours.snapshots['final'])
    np.testing.assert_array_less(np.abs(found - golden), allowed)
    return
  before = _steps_of_init(recording, ours)
  found = ours.epochs[0][:FIRST_STEPS]
  steps = slice(before, before + len(found))
  golden = arrays['step_loss'][steps]
  # Rounding grows about tenfold per step; beyond that, the reference itself
  # strays in single precision, where a ReLU or an entry of a mask flips.
  single = arrays['f32_step_loss'][steps]
  stray = np.maximum.accumulate(np.abs(single / golden - 1))
  number = before + np.arange(len(found))
  rounding = np.minimum(1e-5 * 10.0**number, 1e-2)
  allowed = rounding + STRAY * stray
  np.testing.assert_array_less(np.abs(found / golden - 1), allowed)
