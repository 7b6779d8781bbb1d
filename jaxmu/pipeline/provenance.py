"""Where numbers come from: versions, hardware, seeds, data."""

import dataclasses
import platform
from importlib import metadata
from typing import Any

import jax

from jaxmu import __version__
from jaxmu.execution import hardware as machine
from jaxmu.pipeline import job as job_lib

_PACKAGES = (
  'flax',
  'jax',
  'jaxlib',
  'numpy',
  'optax',
  'orbax-checkpoint',
  'scipy',
)


def provenance(job: job_lib.Job) -> dict[str, Any]:
  """Return everything a reader needs to judge and repeat a run."""
  settings = dataclasses.asdict(job.settings)
  return {
    'configuration': settings,
    'versions': versions(),
    'hardware': hardware(),
    'data': {
      'name': job.source.name,
      'fingerprint': job.source.fingerprint,
      'examples': len(job.source.label),
      'classes': job.source.num_classes,
      'splits': job.split_digest,
    },
    'layout': dataclasses.asdict(job.layout),
    'results': {n: p.digest for n, p in job.populations.items()},
  }


def versions() -> dict[str, str]:
  """Return the versions of Python, jaxmu and the packages it rests on."""
  found = {name: metadata.version(name) for name in _PACKAGES}
  return {'python': platform.python_version(), 'jaxmu': __version__, **found}


def hardware() -> dict[str, Any]:
  """Describe the machine."""
  devices = jax.devices()
  return {
    'backend': jax.default_backend(),
    'device': devices[0].device_kind,
    'devices': len(devices),
    'processor': machine.processor(),
    'cores': machine.cores(),
    'system': platform.platform(),
  }
