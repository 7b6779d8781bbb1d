"""The problem of the contract checks, under the name that tests use."""

from jaxmu.testing.tiny_problem import *  # noqa: F403
