"""What a record says of a run, and how runs are compared by it."""

import dataclasses
import os
from collections.abc import Collection, Mapping
from typing import Any

import jax
import numpy as np

from jaxmu import files, methods, terms
from jaxmu.data import splits
from jaxmu.published.record import Published
from jaxmu.report import results
from jaxmu.study import job as job_lib
from jaxmu.study.settings import Settings

_COMPILER = ('jax_disable_most_optimizations', 'jax_enable_x64')
# Sections of settings that change no number of a report.
_IDLE = (
  *('workdir', 'run', 'curve', 'search', 'search_space', 'search_grid'),
  *('metrics', 'timing'),
)


def compiler() -> dict[str, Any]:
  """Return settings of this process that change how programs are compiled."""
  return {
    'XLA_FLAGS': os.environ.get('XLA_FLAGS', ''),
    **{name: jax.config.read(name) for name in _COMPILER},
  }


def split_hashes(design: splits.Design) -> dict[str, str]:
  """Return the SHA-256 of the index sets of a job, int32 in little-endian."""
  return {
    name: files.sha256_of(np.asarray(getattr(design, name), '<i4'))
    for name in ('retain', 'forget', 'unseen', 'val', 'split', 'forget_set')
  }


def of_job(job: job_lib.Job, name: str, settings: Settings) -> dict[str, Any]:
  """Return what a record says of a job, or of the job of a search.

  Args:
    job: opened.
    name: of the published results.
    settings: of the user; those of the job of a search differ in their seeds.
  """
  provenance = job_lib.provenance(job)
  hardware = dict(provenance['hardware'])
  hardware.pop('system')  # the version of the kernel
  configuration = dataclasses.asdict(settings)
  configuration['workdir'] = name
  configuration['data']['folder'] = ''
  chosen = settings.splits
  return {
    'configuration': results.to_plain(configuration),
    'seeds': {
      'seed': settings.seed,
      'splits.seed': chosen.seed,
      'splits.seeds': chosen.seeds,
      'splits.num_splits': chosen.num_splits,
      'splits.forget_sets': chosen.forget_sets,
      'search.seed': settings.search.seed,
    },
    'data': provenance['data'],
    'splits': split_hashes(job.design),
    'versions': provenance['versions'],
    'hardware': hardware,
    'compiler': compiler(),
    'layout': provenance['layout'],
    'models': {
      population.name: {
        'address': population.digest,
        'number': population.members.size,
        'work': job.counted_cost(population.name),
      }
      for population in job.populations.values()
    },
  }


def environment() -> dict[str, Any]:
  """Return versions, hardware and compiler settings of this process."""
  return {
    'versions': job_lib.versions(),
    'hardware': job_lib.hardware_facts(),
    'compiler': compiler(),
  }


def check_data(one: Published, job: job_lib.Job) -> None:
  """Compare the data and the splits of a job with the published ones.

  Raises:
    ValueError: they differ.
  """
  theirs, ours = one.record['data']['fingerprint'], job.source.fingerprint
  if theirs != ours:
    raise ValueError(
      f'data set {job.source.name!r} is not the one of {one.name}: the SHA-256 '
      f'of its arrays is {ours[:16]}..., and the published one is '
      f'{theirs[:16]}...; docs/data.md says how to prepare it'
    )
  hashes = split_hashes(job.design)
  other = [n for n, h in one.record['splits'].items() if hashes.get(n) != h]
  if other:
    raise ValueError(
      f'the splits of {one.name} are not those of this version: the index sets '
      f'{", ".join(other)} differ'
    )


def changed_fields(
  published: Settings,
  other: Mapping[str, Any],
  chosen: Collection[str],
  label: str = 'published',
) -> list[str]:
  """Return the fields in which the settings of another job differ.

  Args:
    published: settings of the published job.
    other: plain settings of the other one, as a report records them.
    chosen: unlearning methods that are compared.
    label: what a text calls the former.

  Returns:
    A text per field, as 'train.num_epochs = 3 (published: 12)'. Fields that
    change no number are left out.
  """
  theirs = _fields(results.to_plain(dataclasses.asdict(published)), chosen)
  ours = _fields(results.to_plain(other), chosen)
  return [
    f'{name} = {ours.get(name, "unset")} ({label}: {theirs.get(name, "unset")})'
    for name in sorted({*theirs, *ours})
    if theirs.get(name) != ours.get(name)
  ]


def _fields(saved: Mapping[str, Any], chosen: Collection[str]) -> dict:
  """Return the fields that count, by dotted name."""
  by_method = {
    methods.get(one['method']).name: one['hparams']
    for one in saved['unlearners']
  }
  counting = {n: v for n, v in saved.items() if n not in (*_IDLE, 'unlearners')}
  counting['data'] = {'name': saved['data']['name']}
  counting['unlearn'] = {n: v for n, v in by_method.items() if n in chosen}
  return dict(terms.dotted(counting))


def changed_code(one: Published, addresses: Mapping[str, str]) -> list[str]:
  """Say of which models the address differs, although the settings agree.

  The address covers the source code of methods and networks.

  Args:
    one: published results.
    addresses: of the models of the other run, by population.
  """
  known = one.record['models']
  other = [
    name
    for name, address in addresses.items()
    if name in known and known[name]['address'] != address
  ]
  return [f'code or shards of {", ".join(other)}'] if other else []
