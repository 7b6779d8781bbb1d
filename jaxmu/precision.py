"""Precision of the products of a network.

  float32   products of float32 numbers, in full
  tf32      the same numbers, but an accelerator may round the factors of a
            product to ten bits of mantissa (NVIDIA's TF32); a CPU has no such
            products and computes in float32
  bfloat16  convolutions and matrix products of bfloat16 numbers

In all three, weights, gradients, optimiser states, statistics of BatchNorm,
logits and losses are float32.
"""

import contextlib
from typing import Any

import jax

from jaxmu import platforms

DEFAULT = 'float32'
PRECISIONS = (DEFAULT, 'tf32', 'bfloat16')


def check(name: str) -> None:
  """Raise a ValueError if there is no such precision."""
  if name not in PRECISIONS:
    raise ValueError(
      f'precision cannot be {name!r}; choose one of: {", ".join(PRECISIONS)}'
    )


def model_options(name: str) -> dict[str, Any]:
  """Return the options of a model that computes in this precision."""
  check(name)
  return {'dtype': name} if name == 'bfloat16' else {}


def products(name: str) -> contextlib.AbstractContextManager:
  """Return the context in which to trace a program.

  JAX on a GPU rounds the factors of float32 products by default, so full
  float32 is requested explicitly.
  """
  check(name)
  if platforms.is_cpu():
    return contextlib.nullcontext()
  chosen = 'tensorfloat32' if name == 'tf32' else 'float32'
  return jax.default_matmul_precision(chosen)
