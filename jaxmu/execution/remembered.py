"""What probes found on this machine, kept for later jobs.

  <root>/plans/<key>.json    facts, measurements, chunks that ran out of memory

One file per model, batch size, image shape, precision, hardware and versions;
the key is a digest of these facts, which the file repeats in clear. Deleting
the folder is always safe.
"""

import hashlib
import json
import logging
import os
import pathlib
import tempfile
import types
from collections.abc import Mapping
from typing import Any, NamedTuple

from jaxmu.execution.choice import Measured, Plan
from jaxmu.execution.memory import Need

log = logging.getLogger(__name__)


class Notes(NamedTuple):
  """What is known.

  Attributes:
    measured: probed plans.
    most_chunk: of a stage, e.g. 'train scrub', the chunk it was left with
      after running out of memory.
  """

  measured: tuple[Measured, ...] = ()
  most_chunk: Mapping[str, int] = types.MappingProxyType({})


class Book:
  """The file of one set of facts.

  Args:
    root: cache folder.
    facts: JSON-able; whatever the measurements depend on.
  """

  def __init__(self, root: pathlib.Path, facts: dict[str, Any]):
    text = json.dumps(facts, sort_keys=True)
    key = hashlib.sha256(text.encode()).hexdigest()[:16]
    self.path = root / 'plans' / f'{key}.json'
    self._facts = json.loads(text)
    # What was added here is known here even if it cannot be written.
    self._added = Notes()

  def read(self) -> Notes:
    """Return what the file says, if it can be read, and what was added."""
    return _merge(self._on_disk(), self._added)

  def _on_disk(self) -> Notes:
    try:
      found = json.loads(self.path.read_text())
      return Notes(
        tuple(_measured(entry) for entry in found['measured']),
        {name: int(chunk) for name, chunk in found['most_chunk'].items()},
      )
    except FileNotFoundError:
      return Notes()
    except (OSError, ValueError, KeyError, TypeError) as error:
      log.warning('%s is unreadable (%s); it is made again', self.path, error)
      return Notes()

  def add(self, one: Measured) -> Notes:
    """Remember a measurement in place of an older one of the same plan."""
    return self._add(Notes((one,)))

  def ran_out(self, stage: str, chunk: int) -> Notes:
    """Remember that a stage had to be content with a chunk."""
    return self._add(Notes(most_chunk={stage: chunk}))

  def _add(self, notes: Notes) -> Notes:
    self._added = _merge(self._added, notes)
    return self._write(self.read())

  def _write(self, notes: Notes) -> Notes:
    content = {
      'facts': self._facts,
      'measured': [_entry(one) for one in notes.measured],
      'most_chunk': dict(notes.most_chunk),
    }
    try:
      self.path.parent.mkdir(parents=True, exist_ok=True)
      with tempfile.NamedTemporaryFile(
        'w', dir=self.path.parent, suffix='.draft', delete=False
      ) as draft:
        json.dump(content, draft, indent=1)
      os.replace(draft.name, self.path)
    except OSError as error:
      # A job must not fail because its notes cannot be kept.
      log.warning('%s cannot be written (%s)', self.path, error)
    return notes


def _merge(old: Notes, new: Notes) -> Notes:
  """Join notes: the newer measurement of a plan, the smaller chunk."""
  again = {one.plan for one in new.measured}
  others = [one for one in old.measured if one.plan not in again]
  chunks = dict(old.most_chunk)
  for stage, chunk in new.most_chunk.items():
    chunks[stage] = min(chunk, chunks.get(stage, chunk))
  return Notes((*others, *new.measured), chunks)


def _entry(one: Measured) -> dict[str, Any]:
  return {
    **one._asdict(),
    'plan': one.plan._asdict(),
    'need': one.need._asdict(),
  }


def _measured(entry: dict[str, Any]) -> Measured:
  return Measured(
    **{**entry, 'plan': Plan(**entry['plan']), 'need': Need(**entry['need'])}
  )
