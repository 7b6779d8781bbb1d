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
  most_chunk: dict[str, int] = {}  # noqa: RUF012 (never changed in place)


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

  def read(self) -> Notes:
    """Return what is known; nothing if the file is absent or unreadable."""
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
    notes = self.read()
    others = [m for m in notes.measured if m.plan != one.plan]
    return self._write(notes._replace(measured=(*others, one)))

  def ran_out(self, stage: str, chunk: int) -> Notes:
    """Remember that a stage had to be content with a chunk."""
    notes = self.read()
    least = min(chunk, notes.most_chunk.get(stage, chunk))
    return self._write(
      notes._replace(most_chunk={**notes.most_chunk, stage: least})
    )

  def _write(self, notes: Notes) -> Notes:
    content = {
      'facts': self._facts,
      'measured': [_entry(one) for one in notes.measured],
      'most_chunk': notes.most_chunk,
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
