"""Device time by kind of kernel, from JAX's profiler."""

import collections
import re
from typing import Any

MOST = 8  # kernels listed by name
# In this order: the library's convolutions are products as well.
KINDS = (
  ('convolutions', r'cudnn|convolution|implicit|fprop|dgrad|wgrad|winograd'),
  ('products', r'gemm|gemv|cublas|cutlass|nvjet|xmma|split_?k|(^|_)dot'),
  ('copies', r'memcpy|memset|copy|transpose|concatenate'),
  ('sums', r'reduce|reduction'),
  ('sorting', r'sort|radix'),
)
OTHER = 'other'


def kind(name: str) -> str:
  """Name the kind of a kernel."""
  for found, pattern in KINDS:
    if re.search(pattern, name, re.IGNORECASE):
      return found
  return OTHER


def times(data: Any) -> dict[str, float]:
  """Add up the seconds of each kernel.

  Args:
    data: a `jax.profiler.ProfileData`. Without a device (on a CPU), the threads
      of XLA are used, whose events may be nested.
  """
  planes = [p for p in data.planes if p.name.startswith('/device:')]
  prefix = 'Stream'
  if not planes:
    planes = [p for p in data.planes if p.name == '/host:CPU']
    prefix = 'tf_XLA'
  spent: dict[str, float] = collections.defaultdict(float)
  for plane in planes:
    lines = list(plane.lines)
    # Other lines of a device repeat the streams by operation and module.
    chosen = [x for x in lines if x.name.startswith(prefix)]
    for line in chosen or lines:
      for event in line.events:
        spent[event.name] += event.duration_ns / 1e9
  return dict(spent)


def summary(spent: dict[str, float], wall: float) -> str:
  """Describe the shares of the time: by kind, idle, longest kernels.

  Args:
    spent: seconds by kernel.
    wall: wall-clock seconds.
  """
  kinds: dict[str, float] = collections.defaultdict(float)
  for name, seconds in spent.items():
    kinds[kind(name)] += seconds
  kinds['idle'] = wall - sum(spent.values())
  longest = sorted(spent, key=lambda name: -spent[name])[:MOST]
  return '; '.join(
    (
      _shares(sorted(kinds.items(), key=lambda pair: -pair[1]), wall),
      _shares([(name[:60], spent[name]) for name in longest], wall),
    )
  )


def _shares(pairs: list[tuple[str, float]], wall: float) -> str:
  return ', '.join(f'{name} {100 * s / wall:.0f} %' for name, s in pairs)
