"""Audits: numbers, pictures and files; and those of stored scores."""

import dataclasses
import io
import os
import pathlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from jaxmu import files
from jaxmu.api import printing
from jaxmu.attacks import (
  intervals,
  likelihood,
  log_odds,
  per_example,
  registry,
  roc,
)
from jaxmu.attacks import scores as scores_lib
from jaxmu.attacks.interface import Attack
from jaxmu.data import formats
from jaxmu.metrics import distances
from jaxmu.report import (
  glossary,
  html,
  plots,
  progress,
  results,
  summary,
  tables,
)
from jaxmu.report.results import Row
from jaxmu.study import evaluate, publish

Arrays = Mapping[str, Any]  # NumPy arrays by name
Drawings = Mapping[str, Callable[[], plots.Figure | None]]


@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class Audit(printing.Numbers):
  """Numbers with intervals, with those of retrained models; see `audit`.

  Attributes:
    rows: every number: method, metric, value, both ends of its 95 % interval,
      the value of the retrained models, the difference, and the number of
      independent groups behind it. NaN marks what is not available.
    warnings: limitations of the numbers, as sentences.
    failed: (failed models, all models) of methods with failed models.
    missing: why numbers are not available, by (method, metric).
    curves: U-LiRA's curve of each population as arrays `fpr`, `tpr`, `low`,
      `high` and `supported`.
    scores: what the attacks read, as arrays of `jaxmu.attacks.scores`, by
      method.
    drawings: functions that draw pictures, by name.
    extra: functions that return the content of further files of the report.
    title: headline of the report.
    lead: introductory paragraphs of the report.
  """

  rows: Sequence[Row]
  warnings: Sequence[str] = ()
  failed: Mapping[str, tuple[int, int]] = dataclasses.field(
    default_factory=dict
  )
  missing: results.Missing = dataclasses.field(default_factory=dict)
  curves: Mapping[str, Arrays] = dataclasses.field(default_factory=dict)
  scores: Mapping[str, Arrays] = dataclasses.field(default_factory=dict)
  drawings: Drawings = dataclasses.field(default_factory=dict)
  extra: Mapping[str, Callable[[], bytes]] = dataclasses.field(
    default_factory=dict
  )
  title: str = 'Audit'
  lead: Sequence[str] = ()

  def headline(self) -> list[Row]:
    """Return the main rows, without metrics that are not available."""
    first = {row.metric for row in tables.headline(self.rows)}
    first |= {row.metric for row in self.rows if _is_auc(row.metric)}
    shown = {
      row.metric
      for row in self.rows
      if np.isfinite(row.value) and row.method != results.REFERENCE
    }
    return [row for row in self.rows if row.metric in shown & first]

  def __repr__(self) -> str:
    rows = [r for r in self.headline() if not glossary.attack_of(r.metric)]
    texts = []
    if summary.attack_lines(self.rows):
      texts += summary.verdict(self.rows)
      texts.append(tables.attacks_text(self.rows).rstrip('\n'))
    if rows or not texts:
      shown = dataclasses.replace(self, rows=rows or self.headline())
      texts.append(shown.table().rstrip('\n'))
    return '\n'.join([*texts, *(f'Note: {text}' for text in self.warnings)])

  def plot(self, what: str = '') -> Any:
    """Draw a picture; a `matplotlib.figure.Figure`.

    Args:
      what: 'accuracy', 'roc' or another of `drawings`; by default the first
        one available.

    Raises:
      ValueError: this audit has no such picture.
    """
    for name in [what] if what else sorted(self.drawings):
      drawn = self.drawings[name]() if name in self.drawings else None
      if drawn is not None:
        return drawn
    there = ', '.join(self.drawings) or 'none'
    raise ValueError(f'no picture {what!r} of this audit; there are: {there}')

  def report(self, command: str = '') -> html.Report:
    """Return the report.

    Args:
      command: the command line that reproduces it, if there is one.
    """
    problems: list[str] = []
    drawn = [
      picture
      for name, draw in self.drawings.items()
      for picture in html.draw(name, draw, problems)
    ]
    return html.Report(
      title=self.title,
      lead=self.lead,
      rows=self.rows,
      pictures=drawn,
      command=command,
      warnings=[*self.warnings, *problems],
      failed=self.failed,
      missing=self.missing,
    )

  def save(
    self, path: str | os.PathLike, report: html.Report | None = None
  ) -> pathlib.Path:
    """Write the report: results.csv, results.json, report.html, plots, scores.

    Args:
      path: folder to write; made if it does not exist.
      report: what `report` returned; by default it is made here.

    Raises:
      OSError: it cannot be written.
    """
    folder = files.path(path)
    html.write_report(folder, report or self.report())
    for name, arrays in self.scores.items():
      target = folder / 'scores' / f'{name.replace(" ", "_")}.npz'
      files.write_arrays(target, arrays)
    for name, content in self.extra.items():
      files.write_bytes(folder / name, content())
    return folder


def _is_auc(metric: str) -> bool:
  other = metric.startswith('excess_') or metric.endswith('_retain_auc')
  return metric.endswith('_auc') and not other


# Populations of a file, as tables and pictures name them.
METHODS = {
  'original': results.ORIGINAL,
  'retrained': results.REFERENCE,
  'unlearned': results.UNLEARNED,
}


def read_scores(
  path: str | os.PathLike, most: float = formats.MOST_UNPACKED
) -> dict[str, np.ndarray]:
  """Read the arrays of an `.npz` file.

  Args:
    path: the file.
    most: bytes to which it may be unpacked, if they are more than its own.

  Raises:
    ValueError: there is no such file, or it is not an archive of plain arrays,
      or it is too large.
  """
  path = files.path(path)
  if not path.is_file():
    raise ValueError(f'no file {str(path)!r} (looked in {pathlib.Path.cwd()})')
  return formats.read_archive(path, needed=(), most=most)


def of_scores(
  arrays: Arrays,
  origin: str,
  attacks: Sequence[Any] | None = None,
  fprs: Sequence[float] = roc.FPRS,
  *,
  costly: bool = False,
  bars: progress.Progress | None = None,
) -> Audit:
  """Attack stored scores; an error affects the numbers of one attack.

  Args:
    arrays: the scores by name, as in `jaxmu.attacks.scores`.
    origin: where they come from, for messages.
    attacks: names or plug-ins; None for all that these scores allow, with which
      outputs are compared as well.
    fprs: false-positive rates, in (0, 1), at which to give true-positive rates.
    costly: whether None includes attacks that take minutes.
    bars: where to show progress; None for nowhere.

  Raises:
    ValueError: the arrays are not scores, or an attack is unknown or cannot run
      on them.
  """
  try:
    data = scores_lib.from_arrays(arrays)
  except ValueError as error:
    raise ValueError(f'{origin}: {error}') from error
  named = attacks
  if attacks is None:
    named = registry.possible_attacks(data, costly=costly)
  chosen = registry.choose(data, named)
  collected = evaluate.Collected()
  curves: evaluate.Curves = {}
  bars = bars or progress.Progress(io.StringIO())
  with bars.stage('attack', total=len(chosen), unit='attacks') as stage:
    for attack in chosen:
      curves |= evaluate.run_attack(attack, data, METHODS, collected, fprs=fprs)
      stage.advance(1)
  rows = evaluate.rows(collected)
  if attacks is None:
    rows += output_rows(arrays, data.group)
  extra: dict[str, Callable[[], bytes]] = {}
  worked = {attack.name for attack in chosen if _worked(attack, collected)}
  if 'per_example' in worked:
    extra['per_example.csv'] = lambda: exposure_csv(data).encode()
  if 'ulira' in worked:
    extra['membership.npz'] = lambda: membership(data)
  return Audit(
    rows=rows,
    warnings=[*data.warnings, *_notes(collected)],
    failed={
      METHODS[name]: (int(one.failed.sum()), len(one.failed))
      for name, one in data.populations.items()
      if one.failed.any()
    },
    missing=collected.missing,
    curves=curves,
    drawings=_drawings(data, curves, rows),
    extra=extra,
    title='Attacks on stored scores',
    lead=_lead(data),
  )


def _worked(attack: Attack, collected: evaluate.Collected) -> bool:
  prefix = f'{attack.name}_'
  numbers = collected.estimates.get(results.UNLEARNED, {})
  return any(
    name.startswith(prefix) and not np.isnan(one.value)
    for name, one in numbers.items()
  )


def output_rows(
  arrays: Mapping[str, np.ndarray], group: np.ndarray
) -> list[Row]:
  """Compare outputs on forgotten examples with those of retrained models.

  The scale is the same number for retrained models: each is compared with that
  of the next row, on examples that neither was trained on.

  Args:
    arrays: the arrays of the file; the result is empty without logits of both
      populations.
    group: int[P], the units of intervals.
  """
  arrays = scores_lib.with_logits(arrays)
  if not {'logits', 'retrained_logits'} <= arrays.keys():
    return []
  # The unaugmented view, where there are several.
  unlearned, retrained = (
    z[:, :, 0] if z.ndim == 4 else z
    for z in (arrays['logits'], arrays['retrained_logits'])
  )
  state = arrays['state']
  forgotten = state == log_odds.FORGOTTEN
  unused = np.roll(state, -1, axis=0) != log_odds.RETAINED
  following = np.roll(retrained, -1, axis=0)
  numbers: dict[str, dict[str, intervals.Estimate]] = {
    results.UNLEARNED: {},
    results.REFERENCE: {},
  }
  for name, function in distances.OUTPUT_DISTANCES.items():
    bounds = None if name == 'outputs_kl' else (0.0, 1.0)
    for method, other, where in (
      (results.UNLEARNED, unlearned, forgotten),
      (results.REFERENCE, following, forgotten & unused),
    ):
      numbers[method][name] = _over_groups(
        function, retrained, other, where, group, bounds
      )
  return results.rows(numbers)


def _over_groups(
  function: Callable[[np.ndarray, np.ndarray], np.ndarray],
  first: np.ndarray,
  second: np.ndarray,
  where: np.ndarray,
  group: np.ndarray,
  bounds: tuple[float, float] | None,
) -> intervals.Estimate:
  """Compare models row by row on chosen examples, and average over groups."""
  by_model = np.array(
    [
      function(a[w], b[w]) if w.any() else np.nan
      for a, b, w in zip(first, second, where, strict=True)
    ]
  )
  means = intervals.group_means(by_model, group)
  return intervals.over_splits(means, bounds=bounds)


def _notes(collected: evaluate.Collected) -> list[str]:
  """Say which numbers are not available or pooled, and why."""
  pooled = {
    (method, metric): 'one threshold for all models, since single models and '
    'splits have too few never-seen examples'
    for method, estimates in collected.estimates.items()
    for metric, estimate in estimates.items()
    if estimate.pooling == 'population' and not np.isnan(estimate.value)
  }
  return summary.explain_missing(collected.missing) + [
    sentence.replace('Not available', 'Pooled')
    for sentence in summary.explain_missing(pooled)
  ]


def exposure_csv(data: scores_lib.Scores) -> str:
  """List the exposure of every tested example, most exposed first."""
  exposures = {
    name: per_example.exposure(one) for name, one in data.populations.items()
  }
  audited, null = exposures['unlearned'], exposures.get('retrained')
  tested = np.flatnonzero(np.isfinite(audited.auc))
  lines = ['example,auc,p_value,discovered,retrained_auc']
  for n in tested[np.argsort(-audited.auc[tested], kind='stable')]:
    retrained = repr(float(null.auc[n])) if null is not None else 'nan'
    lines.append(
      f'{n},{float(audited.auc[n])!r},{float(audited.p_value[n])!r},'
      f'{int(audited.discovered[n])},{retrained}'
    )
  return '\n'.join(lines) + '\n'


def membership(data: scores_lib.Scores) -> bytes:
  """Return U-LiRA's scores of every model and example, as an .npz file.

  It holds `log_ratio` f32[P, N], log-likelihood ratios of forgotten against
  never seen, and `probability` f32[P, N] of having been forgotten, at equal
  prior probabilities; NaN where an example could not be scored.
  """
  ratio = registry.score('ulira', data)['unlearned']
  content = io.BytesIO()
  np.savez_compressed(
    content,
    log_ratio=ratio.astype(np.float32),
    probability=likelihood.posterior(ratio).astype(np.float32),
  )
  return content.getvalue()


def _drawings(
  data: scores_lib.Scores, curves: evaluate.Curves, rows: Sequence[Row]
) -> Drawings:
  """Return functions that draw ROC, trade-off, log-odds and exposure."""
  drawings: dict[str, Callable[[], plots.Figure | None]] = {
    'log_odds': lambda: _log_odds(data),
    'vulnerability': lambda: _exposure(data),
  }
  if curves:
    drawings = {
      'roc': lambda: publish.roc_figure(curves, rows),
      'trade_off': lambda: _trade_off(data),
      **drawings,
    }
  return drawings


def _trade_off(data: scores_lib.Scores) -> plots.Figure | None:
  errors = {}
  for name, ratio in registry.score('ulira', data).items():
    kinds = _by_kind(ratio, data.populations[name])
    if all(map(len, kinds)):
      errors[METHODS[name]] = roc.trade_off(*kinds)
  remarks = {
    name: f'μ = {roc.gaussian_mu(*curve):.2f}' for name, curve in errors.items()
  }
  return plots.trade_off(errors, remarks=remarks) if errors else None


def _by_kind(
  score: np.ndarray, one: scores_lib.PopulationScores
) -> tuple[np.ndarray, np.ndarray]:
  """Return known scores of forgotten and of never-seen examples."""
  known, state = np.isfinite(score), one.audited_state
  return (
    score[known & (state == log_odds.FORGOTTEN)],
    score[known & (state == log_odds.NEVER_SEEN)],
  )


def _log_odds(data: scores_lib.Scores) -> plots.Figure:
  return plots.log_odds(
    {
      METHODS[name]: _by_kind(one.mean, one)
      for name, one in data.populations.items()
    }
  )


def _exposure(data: scores_lib.Scores) -> plots.Figure | None:
  if data.original is None:
    return None
  exposures = {
    name: per_example.exposure(one) for name, one in data.populations.items()
  }
  return plots.vulnerability(
    exposures['original'],
    exposures['unlearned'],
    method=results.UNLEARNED,
    title='Exposure of single examples before and after unlearning',
    retrained=exposures.get('retrained'),
  )


def _lead(data: scores_lib.Scores) -> list[str]:
  models, examples = data.state.shape
  forgotten = int((data.state == log_odds.FORGOTTEN).any(axis=0).sum())
  against = 'with' if data.retrained is not None else 'without'
  return [
    f'{models} unlearned models of {len(np.unique(data.split))} splits were '
    f'attacked on {examples:,} examples, {against} scores of retrained models '
    f'for comparison. Some model forgot {forgotten:,} of the examples. An '
    'attack that cannot distinguish forgotten from never-seen examples is at '
    'chance (AUC 0.5).',
  ]
