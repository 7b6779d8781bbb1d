"""Addresses made of content: equal inputs, equal digest, equal folder."""

import hashlib
import json
from typing import Any

import numpy as np

from jaxmu import __version__


def digest(stage: str, version: int, *inputs: Any) -> str:
  """Return the address of a stage's output, 12 hex digits.

  Args:
    stage: name of the stage.
    version: number raised by hand when the stage's results change meaning.
    *inputs: everything the output depends on: plain settings, fingerprints of
      data, digests of earlier stages.
  """
  text = json.dumps(
    [__version__, stage, version, *inputs],
    sort_keys=True,
    separators=(',', ':'),
    default=_plain,
  )
  return hashlib.sha256(text.encode()).hexdigest()[:12]


def _plain(value: Any) -> Any:
  if isinstance(value, np.generic):
    return value.item()
  if isinstance(value, np.ndarray):
    data = hashlib.sha256(np.ascontiguousarray(value).tobytes())
    return [str(value.dtype), list(value.shape), data.hexdigest()]
  raise TypeError(f'cannot address {type(value).__name__}: {value!r}')
