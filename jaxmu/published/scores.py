"""Published scores: rounded log-odds of every model, and attacks on them.

  scores/design.npz   what all models of the job share
    examples i32[n]   position in the data set of each column
    labels   i32[n]
    state    u8[..]   role of each example in the training of each model, two
                      bits each, row by row: 0 retained, 1 forgotten, 2 never
                      seen, 3 excluded
    split, cluster, original  i32[P]  training set, independent unit (see
                      `jaxmu.metrics.interface`), row in original.npz
  scores/MODELS.npz   of a population
    log_odds f16[k]   row by row, those entries that `is_kept` names; f32[k]
                      where a score is beyond the range of float16, or float16
                      changes the AUC of U-LiRA too much (`writing`)
    failed   bool[P]  models whose scores mean nothing

Columns are the examples that some model could have been trained on. Left out
are retained entries of examples that no model forgets, which no attack on
forgotten examples reads. A score of minus infinity was not finite in the model.

`attack` gives the numbers of a report; `arrays` what `jaxmu.attack` takes.
"""

import dataclasses
import io
import pathlib
from collections.abc import Collection, Mapping
from typing import Any

import numpy as np

from jaxmu import files, terms
from jaxmu.data import formats
from jaxmu.published.record import Published
from jaxmu.report import glossary, results

FOLDER = 'scores'
DESIGN = 'design'
MOST_BYTES = 8_000_000  # of the scores of a job
_CODES = 4  # of a state, in one byte
# The placeholder of a score that was not finite, see `Evaluated.log_odds`.
LOWEST = float(np.finfo(np.float32).min)


def packed_state(state: np.ndarray) -> np.ndarray:
  """Return states int8[P, n] as bytes, four entries in each.

  Example:
    >>> packed_state(np.array([[1, 2, 3], [0, 3, 1]])).tolist()
    [57, 7]
  """
  flat = np.zeros(-(-state.size // _CODES) * _CODES, np.uint8)
  flat[: state.size] = state.reshape(-1)
  four = flat.reshape(-1, _CODES)
  return (four << np.arange(0, 8, 2, dtype=np.uint8)).sum(1).astype(np.uint8)


def unpacked_state(packed: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
  """Return int8[P, n] states; the inverse of `packed_state`."""
  four = packed[:, None] >> np.arange(0, 8, 2, dtype=np.uint8) & 3
  return four.reshape(-1)[: shape[0] * shape[1]].reshape(shape).astype(np.int8)


def is_kept(state: np.ndarray) -> np.ndarray:
  """Return which entries are published, bool[P, n].

  Args:
    state: int8[P, n].
  """
  audited = (state == terms.FORGOTTEN).any(axis=0)
  unread = (state == terms.RETAINED) & ~audited
  return (state != terms.EXCLUDED) & ~unread


def compact(job: Any, wide: Collection[str] = ()) -> dict[str, bytes]:
  """Return the files of the scores of a finished job by name.

  Args:
    job: `jaxmu.study.job.Job` with its predictions.
    wide: populations whose scores are kept in float32.
  """
  from jaxmu.study import evaluate
  from jaxmu.study import job as job_lib

  content: dict[str, bytes] = {}
  everyone = job_lib.members_per_forget_set(
    job.design, job.settings.splits.seeds
  )
  once = job.populations[results.ORIGINAL].members
  of = job_lib.originals_of(everyone, once)
  _, first = np.unique(of, return_index=True)
  for name in job.populations:
    population = evaluate.read_population(job, name, [])
    columns = (population.state != terms.EXCLUDED).any(axis=0)
    state = population.state[:, columns]
    if not content:
      content[DESIGN] = _npz(
        examples=np.flatnonzero(columns).astype(np.int32),
        labels=np.asarray(job.source.label)[columns].astype(np.int32),
        state=packed_state(state),
        split=population.split.astype(np.int32),
        cluster=population.cluster.astype(np.int32),
        original=of.astype(np.int32),
      )
    rows = first if name == results.ORIGINAL else np.arange(len(of))
    scores = population.log_odds[rows][:, columns]
    content[name] = _npz(
      log_odds=rounded(scores[is_kept(state)[rows]], name in wide),
      failed=population.failed[rows],
    )
  return content


def rounded(log_odds: np.ndarray, wide: bool = False) -> np.ndarray:
  """Return scores as they are published.

  Models that diverge have scores beyond 65504, the largest number of float16.
  As infinite ones they would change the result of an attack.

  Args:
    log_odds: f64[k]; what was not finite in the model has the placeholder of
      `jaxmu.metrics.Evaluated.log_odds`.
    wide: whether to keep float32 in any case.

  Returns:
    f16[k]; or f32[k] if `wide`, or if a score is beyond the range of float16.
    Placeholders become minus infinity.

  Example:
    >>> rounded(np.array([1.0001, -3.0])).dtype, rounded(np.array([-7e4])).dtype
    (dtype('float16'), dtype('float32'))
  """
  known = log_odds > LOWEST
  fits = (np.abs(log_odds[known]) <= np.finfo(np.float16).max).all()
  dtype = np.float32 if wide or not fits else np.float16
  return np.where(known, log_odds, -np.inf).astype(dtype)


def _npz(**arrays: np.ndarray) -> bytes:
  content = io.BytesIO()
  np.savez_compressed(content, **arrays)  # type: ignore[arg-type]
  return content.getvalue()


@dataclasses.dataclass(frozen=True, eq=False)
class Scores:
  """Published scores of a job.

  Attributes:
    examples: i32[n], positions in the data set.
    labels: i32[n].
    state: int8[P, n].
    split, cluster, original: i32[P].
    log_odds: by population, f64[P, n], NaN where nothing is published; those
      of the originals repeated for each row that starts from them.
    failed: by population, bool[P].
  """

  examples: np.ndarray
  labels: np.ndarray
  state: np.ndarray
  split: np.ndarray
  cluster: np.ndarray
  original: np.ndarray
  log_odds: Mapping[str, np.ndarray]
  failed: Mapping[str, np.ndarray]


def names(one: Published) -> list[str]:
  """Return the populations whose scores are published."""
  found = sorted(path.stem for path in (one.folder / FOLDER).glob('*.npz'))
  return results.ordered(name for name in found if name != DESIGN)


def read(one: Published, wanted: Collection[str] | None = None) -> Scores:
  """Read published scores.

  Args:
    one: published results of a job.
    wanted: populations; None for all.

  Raises:
    ValueError: the scores of a population are not published.
  """
  folder = one.folder / FOLDER
  there = names(one)
  for name in there if wanted is None else wanted:
    if name not in there:
      raise ValueError(
        f'the scores of {name} are not published in {one.name}; '
        + (f'there are those of {", ".join(there)}' if there else 'none are')
      )
  design = _read(folder / f'{DESIGN}.npz')
  shape = len(design['split']), len(design['examples'])
  state = unpacked_state(design.pop('state'), shape)
  log_odds, failed = {}, {}
  for name in there if wanted is None else wanted:
    arrays = _read(folder / f'{name}.npz')
    of = np.arange(shape[0])
    if name == results.ORIGINAL:
      of = design['original']
    first = np.array([np.argmax(of == k) for k in range(of.max() + 1)])
    full = np.full((len(first), shape[1]), np.nan)
    full[is_kept(state)[first]] = arrays['log_odds']
    log_odds[name], failed[name] = full[of], arrays['failed'][of]
  return Scores(state=state, log_odds=log_odds, failed=failed, **design)


def _read(path: pathlib.Path) -> dict[str, np.ndarray]:
  return dict(formats.read_archive(path, needed=()))


def arrays(one: Published, method: str) -> dict[str, np.ndarray]:
  """Return scores as `jaxmu.attack` and `jaxmu.audit` take them.

  They have the examples that some model forgets, as the attacks of a report
  except for U-LiRA, which also fits the never-seen entries of others.

  Args:
    one: published results of a job.
    method: name of an unlearning method.

  Returns:
    `log_odds`, `retrained_log_odds` and `original_log_odds` f32[P, n], `failed`
    of each, `state` int8[P, n] and `split` i32[P].

  Raises:
    ValueError: the scores are not published.
  """
  prefixes = {method: '', results.ORIGINAL: 'original_'}
  if results.REFERENCE in names(one):
    prefixes[results.REFERENCE] = 'retrained_'
  found = read(one, prefixes)
  audited = (found.state == terms.FORGOTTEN).any(axis=0)
  out = {'state': found.state[:, audited], 'split': found.split}
  for name, prefix in prefixes.items():
    scores = found.log_odds[name][:, audited].astype(np.float32)
    out[f'{prefix}log_odds'] = scores
    out[f'{prefix}failed'] = found.failed[name]
  return out


def attack(
  one: Published,
  wanted: Collection[str],
  metrics: Collection[str] | None = None,
) -> list[results.Row]:
  """Attack published scores as the report of the job did.

  Args:
    one: published results of a job.
    wanted: populations to attack.
    metrics: numbers that are needed; None for those of all cheap attacks.

  Returns:
    The numbers of the attacks; those that other files give are not among them.

  Raises:
    ValueError: the scores of a population are not published.
  """
  from jaxmu.study import evaluate

  there = names(one)
  base = [results.REFERENCE] if results.REFERENCE in there else []
  found = read(one, [*base, *(n for n in wanted if n not in base)])
  attacks: list[str] = []
  if metrics is not None:
    attacks = sorted({glossary.attack_of(metric) for metric in metrics} - {''})
  options = one.record['configuration']['attack']
  chosen = ('mode', 'variance', 'location')
  collected = evaluate.Collected()
  runner = evaluate.Attacks(
    collected,
    attacks or [n for n in options['which'].split(',') if n.strip()],
    settings={'ulira': {name: options[name] for name in chosen}},
  )
  reference = _evaluated(one, found, results.REFERENCE) if base else None
  for name in wanted:
    population = reference
    if name != results.REFERENCE or population is None:
      population = _evaluated(one, found, name)
    population = dataclasses.replace(population, retrained=reference)
    runner.run(population, found.original)
  kept = {*wanted}
  return [row for row in evaluate.rows(collected) if row.method in kept]


def _evaluated(one: Published, found: Scores, name: str) -> Any:
  """Return a population as metrics and attacks read it."""
  from jaxmu.metrics import Evaluated

  kept = is_kept(found.state)
  nothing = np.zeros(0, np.int64)
  scores = found.log_odds[name]
  scores = np.where(np.isneginf(scores), LOWEST, scores)
  return Evaluated(
    name=name,
    log_odds=np.where(kept, scores, 0.0),
    correct=scores > 0,
    state=np.where(kept, found.state, terms.EXCLUDED).astype(np.int8),
    validation=nothing,
    test=nothing,
    cluster=found.cluster,
    split=found.split,
    classes=one.record['data']['classes'],
    failed=found.failed[name],
  )


def rounding(
  exact: Collection[results.Row], rounded: Collection[results.Row]
) -> dict[tuple[str, str], float]:
  """Return by how much numbers from rounded scores differ from exact ones.

  Args:
    exact: numbers of a report.
    rounded: numbers of the attacks on published scores.

  Returns:
    The difference of each number, by population and name of the number:
    infinite if it is finite on one side alone. Numbers that are finite on
    neither side are left out.
  """
  known = {(row.method, row.metric): row.value for row in exact}
  out: dict[tuple[str, str], float] = {}
  for row in rounded:
    value = known.get((row.method, row.metric))
    if value is None or not np.isfinite([value, row.value]).any():
      continue
    changed = abs(value - row.value)
    out[row.method, row.metric] = changed if np.isfinite(changed) else np.inf
  return out


def write(
  folder: pathlib.Path, content: Mapping[str, bytes], most: int = MOST_BYTES
) -> list[dict[str, Any]]:
  """Write the files of scores, in order; remove those that do not fit.

  Args:
    folder: of published results.
    content: from `compact`.
    most: bytes to write at most.

  Returns:
    Name, size and SHA-256 of the files that are left out.
  """
  left_out = []
  written = 0
  for name, data in content.items():
    path = f'{FOLDER}/{name}.npz'
    if written + len(data) > most:
      facts = {'bytes': len(data), 'sha256': files.sha256_of(data)}
      left_out.append({'file': path, **facts})
      (folder / path).unlink(missing_ok=True)
      continue
    written += len(data)
    files.write_bytes(folder / path, data)
  return left_out
