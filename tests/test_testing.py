"""The public contract checks: one entry point, one form of message, no jax."""

import doctest
import importlib
import subprocess
import sys

import pytest

from jaxmu import testing

KINDS = ('method', 'attack', 'metric', 'model')


def test_examples_in_docstrings_run():
  for kind in KINDS:
    module = importlib.import_module(f'jaxmu.testing.{kind}s')
    result = doctest.testmod(module)
    assert result.attempted and not result.failed, kind


def test_attacks_are_checked_without_jax():
  code = (
    'import sys; from jaxmu import testing; testing.check_attack("loss"); '
    'print(*sys.modules)'
  )
  done = subprocess.run(
    [sys.executable, '-c', code], capture_output=True, text=True, check=True
  )
  loaded = done.stdout.split()
  assert 'jaxmu.attacks.registry' in loaded
  assert not {'jax', 'flax', 'jaxmu.methods'} & set(loaded)


def test_every_check_refuses_what_it_does_not_know():
  assert {f'check_{kind}' for kind in KINDS} <= set(dir(testing))
  for kind in KINDS:
    check = getattr(testing, f'check_{kind}')
    with pytest.raises(ValueError, match=f"unknown {kind} 'no_such'"):
      check('no_such')
  with pytest.raises(ValueError, match="no rules .'gravity'. for attacks"):
    testing.check_attack('loss', rules=['gravity'])
  with pytest.raises(AttributeError, match='no attribute'):
    testing.check_nothing  # noqa: B018


def test_an_error_names_rule_observation_and_remedy():
  faults = (
    testing.Fault('null', 'auc is 0.7.', 'Fit without the scored model.'),
    testing.Fault('repeat', 'auc changes.', 'Seed it.'),
  )
  error = testing.ContractError('attack', 'mine', faults)
  assert str(error).splitlines() == [
    "attack 'mine' breaks 2 rules for attacks:",
    '  null: auc is 0.7. Fit without the scored model.',
    '  repeat: auc changes. Seed it.',
  ]
  assert error.faults == faults
