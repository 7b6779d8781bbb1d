"""Double precision for tests that compare formulations."""

import jax
import pytest


@pytest.fixture
def x64():
  with jax.enable_x64(True):
    yield
