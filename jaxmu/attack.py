"""Attack stored scores of models from any framework, and report.

    python -m jaxmu.attack --scores=file.npz --out=directory

The file holds arrays (nothing else of a model is needed; no training code is
run): `log_odds` float [models, examples] or [models, examples, augmentations],
or `logits` with a last axis of classes and `labels` int [examples]; `state` int
[models, examples] (0 retained, 1 forgotten, 2 never seen, 3 excluded); `split`
int [models]; and, for the comparison with retraining, `retrained_log_odds` or
`retrained_logits` of the same form, and `original_...` for the models before
unlearning. docs/attacks.md explains every number.
"""

import io
import os
import pathlib
import sys
import time
import zipfile
from collections.abc import Mapping

import numpy as np
from absl import app, flags

from jaxmu import files
from jaxmu.attacks import (
  intervals,
  likelihood,
  log_odds,
  per_example,
  registry,
  roc,
)
from jaxmu.attacks import scores as scores_lib
from jaxmu.metrics import utility
from jaxmu.report import html, plots, progress, results, tables

_SCORES = flags.DEFINE_string('scores', None, 'An .npz file of scores.')
_OUT = flags.DEFINE_string(
  'out', None, 'Directory for results.csv, plots and report.html.'
)
_ATTACKS = flags.DEFINE_list(
  'attacks', [], 'Names of the attacks to run; all that can run if empty.'
)
_FPRS = flags.DEFINE_list(
  'fprs', ['0.001', '0.01', '0.1'], 'False-positive rates of the TPR.'
)

_OUTPUTS = {
  'kl': utility.kl,
  'total_variation': utility.total_variation,
  'disagreement': utility.disagreement,
}
_GRID = np.geomspace(1e-3, 1.0, 61)
# Populations in the pictures, by the keys that `jaxmu.report` knows.
_PICTURED = {
  'original': 'original',
  'retrained': 'retrain',
  'unlearned': 'unlearned',
}


def load(path: str) -> dict[str, np.ndarray]:
  """Read the arrays of a file.

  Raises:
    ValueError: the file is not an .npz archive of plain arrays.
  """
  if not os.path.isfile(path):
    raise ValueError(f'--scores={path}: no such file')
  try:
    with np.load(path, allow_pickle=False) as archive:
      return {key: archive[key] for key in archive.files}
  except (ValueError, zipfile.BadZipFile, AttributeError, EOFError) as error:
    raise ValueError(
      f'--scores={path} is not an .npz file of plain arrays; write it '
      'with numpy.savez(path, log_odds=..., state=..., split=...)'
    ) from error


def read(path: str) -> scores_lib.Scores:
  """Read and check a file of scores.

  Raises:
    ValueError: the file cannot be read, or its content is refused by
      `scores.from_arrays`.
  """
  return check(path, load(path))


def check(path: str, arrays: Mapping[str, np.ndarray]) -> scores_lib.Scores:
  """Turn the arrays of a file into scores.

  Raises:
    ValueError: they are refused by `scores.from_arrays`.
  """
  try:
    return scores_lib.from_arrays(arrays)
  except ValueError as error:
    raise ValueError(f'--scores={path}: {error}') from error


def parse_fprs(texts: list[str]) -> tuple[float, ...]:
  """Parse false-positive rates.

  Raises:
    ValueError: one is not a number between 0 and 1.
  """
  rates = []
  for text in texts:
    try:
      rate = float(text)
    except ValueError:
      rate = -1.0
    if not 0 < rate < 1:
      raise ValueError(
        f'--fprs has {text!r}; expected numbers between 0 and 1, such as 0.01'
      )
    rates.append(rate)
  return tuple(rates)


def check_directory(path: str) -> pathlib.Path:
  """Make the output directory before any work is done.

  Raises:
    ValueError: it cannot be made or written.
  """
  directory = pathlib.Path(path)
  try:
    directory.mkdir(parents=True, exist_ok=True)
  except OSError as error:
    raise ValueError(f'--out={path} cannot be made: {error}') from error
  if not os.access(directory, os.W_OK):
    raise ValueError(f'--out={path} cannot be written; choose another')
  return directory


def rows(findings: list[registry.AttackResult]) -> list[results.AttackRow]:
  """Turn findings into rows of results.csv."""
  return [
    results.AttackRow(
      attack=finding.attack,
      metric=name,
      value=estimate.value,
      low=estimate.low,
      high=estimate.high,
      n=estimate.n,
    )
    for finding in findings
    for name, estimate in _named(finding).items()
  ]


def _named(finding: registry.AttackResult) -> dict[str, intervals.Estimate]:
  """Return the estimates of a result by their names in results.csv."""
  if finding.population != 'unlearned':
    name = f'{finding.population}_{finding.statistic}'
    return {name: finding.estimate}
  named = {finding.statistic: finding.estimate}
  if finding.excess is not None:
    named[f'excess_{finding.statistic}'] = finding.excess
  return named


def output_rows(
  arrays: Mapping[str, np.ndarray], group: np.ndarray
) -> list[results.AttackRow]:
  """Compare outputs on forgotten examples with those of retrained models.

  Beside each number stands its scale, 'retrained_*': retrained models against
  those of the next row, on examples that neither was trained on.

  Args:
    arrays: of the file; without logits of both populations there is no row.
    group: int[P], what intervals are over.
  """
  if not {'logits', 'retrained_logits'} <= arrays.keys():
    return []
  # The clean view, where there are several.
  unlearned, retrained = (
    z[:, :, 0] if z.ndim == 4 else z
    for z in (arrays['logits'], arrays['retrained_logits'])
  )
  state = arrays['state']
  forgotten = state == log_odds.FORGOTTEN
  unused = np.roll(state, -1, axis=0) != log_odds.RETAINED
  following = np.roll(retrained, -1, axis=0)
  found = []
  for name, function in _OUTPUTS.items():
    for prefix, other, where in (
      ('', unlearned, forgotten),
      ('retrained_', following, forgotten & unused),
    ):
      by_model = np.array(
        [
          function(a[w], b[w]) if w.any() else np.nan
          for a, b, w in zip(retrained, other, where, strict=True)
        ]
      )
      estimate = intervals.over_splits(intervals.group_means(by_model, group))
      found.append(
        results.AttackRow(
          'outputs',
          f'{prefix}{name}',
          estimate.value,
          estimate.low,
          estimate.high,
          estimate.n,
        )
      )
  return found


def notes(findings: list[registry.AttackResult]) -> list[str]:
  """Say which numbers were refused or pooled, and why."""
  found: dict[str, list[str]] = {}
  for finding in findings:
    estimate, reason = finding.estimate, finding.estimate.note
    if not reason and estimate.pooling == 'population':
      reason = (
        'one threshold for all models, since single models and splits have too '
        'few never-seen examples'
      )
    if reason:
      name = f'{finding.attack} {finding.statistic}'
      found.setdefault(reason, []).append(name)
  return [
    f'{", ".join(names[:4])}'
    f'{f" and {len(names) - 4} more" if len(names) > 4 else ""}: {reason}.'
    for reason, names in found.items()
  ]


def exposure_csv(data: scores_lib.Scores) -> str:
  """List the exposure of every tested example, most exposed first."""
  found = {
    name: per_example.exposure(one) for name, one in data.populations.items()
  }
  own, null = found['unlearned'], found.get('retrained')
  tested = np.flatnonzero(np.isfinite(own.auc))
  lines = ['example,auc,p_value,discovered,retrained_auc']
  for n in tested[np.argsort(-own.auc[tested], kind='stable')]:
    retrained = repr(float(null.auc[n])) if null is not None else 'nan'
    lines.append(
      f'{n},{float(own.auc[n])!r},{float(own.p_value[n])!r},'
      f'{int(own.discovered[n])},{retrained}'
    )
  return '\n'.join(lines) + '\n'


def membership(data: scores_lib.Scores) -> bytes:
  """Return what U-LiRA says of every model and example, as an .npz file.

  It holds `log_ratio` f32[P, N], log-likelihood ratios of forgotten against
  never seen, and `probability` f32[P, N] of having been forgotten where both
  are as likely beforehand; NaN where an example could not be scored.
  """
  ratio = registry.score('ulira', data)['unlearned']
  found = io.BytesIO()
  np.savez_compressed(
    found,
    log_ratio=ratio.astype(np.float32),
    probability=likelihood.posterior(ratio).astype(np.float32),
  )
  return found.getvalue()


def pictures(data: scores_lib.Scores) -> list[html.Picture]:
  """Draw ROC, trade-off, log-odds and exposure of all populations."""
  ratios = registry.score('ulira', data)
  curves, errors, confidences = {}, {}, {}
  forgotten, unseen = (
    data.state == code for code in (log_odds.FORGOTTEN, log_odds.NEVER_SEEN)
  )
  audited = forgotten.any(axis=0)
  for side, ratio in ratios.items():
    name = _PICTURED[side]
    curve = roc.curves(ratio, data.state, data.group, fpr=_GRID)
    curves[name] = plots.Roc(
      fpr=curve['fpr'],
      tpr=curve['tpr'],
      low=curve['low'],
      high=curve['high'],
      supported=curve['supported'],
    )
    known = ~np.isnan(ratio)
    errors[name] = roc.trade_off(
      ratio[known & forgotten], ratio[known & unseen]
    )
    z = data.populations[side].mean
    confidences[name] = z[forgotten], z[unseen & audited]
  found = [
    html.Picture(
      'roc',
      'How many forgotten examples U-LiRA finds (vertical) at the price of how '
      'many false alarms (horizontal), on logarithmic axes. The diagonal is '
      'guessing; bands are 95% intervals over independent groups of models.',
      plots.roc(curves),
    ),
    html.Picture(
      'trade_off',
      'The two kinds of errors open to an attacker, false alarms and misses; '
      'the diagonal is guessing. μ is the distance of two bell curves of unit '
      'width that are as hard to tell apart; retrained models show how much of '
      'it is chance.',
      plots.trade_off(errors, remarks=_mu(errors)),
    ),
    html.Picture(
      'log_odds',
      'Confidence in the true class on examples that the models forgot and on '
      'examples that they never saw.',
      plots.log_odds(confidences),
    ),
  ]
  if data.original is not None:
    found.append(_exposure_picture(data))
  return found


def _mu(errors: Mapping[str, tuple[np.ndarray, np.ndarray]]) -> dict[str, str]:
  return {
    name: f'μ = {roc.gaussian_mu(*curve):.2f}' for name, curve in errors.items()
  }


def _exposure_picture(data: scores_lib.Scores) -> html.Picture:
  auc = {
    name: per_example.exposure(one).auc
    for name, one in data.populations.items()
  }
  return html.Picture(
    'vulnerability',
    'Each point is an example: how well its score tells models that had it '
    'from models that never saw it, before unlearning (horizontal) and after '
    '(vertical).',
    plots.vulnerability(
      auc['original'],
      auc['unlearned'],
      method=_PICTURED['unlearned'],
      title='Exposure of single examples before and after unlearning',
      retrained=auc.get('retrained'),
    ),
  )


def main(argv: list[str]) -> None:
  if len(argv) > 1:
    raise app.UsageError(f'unknown arguments {argv[1:]}; use --scores, --out')
  started = time.monotonic()
  try:
    fprs = parse_fprs(_FPRS.value)
    arrays = load(str(_SCORES.value))
    data = check(str(_SCORES.value), arrays)
    chosen = registry.choose(data, _ATTACKS.value or None)
    directory = check_directory(str(_OUT.value))
    with progress.Progress() as bars:
      with bars.stage('attack', total=len(chosen), unit='attacks') as stage:
        findings = registry.run(
          data, attacks=chosen, fprs=fprs, advance=lambda _: stage.advance(1)
        )
  except ValueError as error:
    sys.exit(f'error: {error}')
  report = html.Report(
    title='Attacks on stored scores',
    lead=_lead(data),
    rows=rows(findings)
    + ([] if _ATTACKS.value else output_rows(arrays, data.group)),
    pictures=pictures(data),
    command=f'python -m jaxmu.attack --scores={_SCORES.value}',
    warnings=[*data.warnings, *notes(findings)],
    reference=_PICTURED['retrained'],
  )
  html.write_report(directory, report)
  names = [one.name for one in chosen]
  if 'per_example' in names:
    files.write_text(directory / 'per_example.csv', exposure_csv(data))
  if 'ulira' in names:
    files.write_bytes(directory / 'membership.npz', membership(data))
  tables.show_table(report.rows)
  for line in (*report.findings, *data.warnings):
    print(line)
  seconds = time.monotonic() - started
  print(f'{directory / "report.html"} written after {seconds:.0f} s')


def _lead(data: scores_lib.Scores) -> list[str]:
  models, examples = data.state.shape
  forgotten = int((data.state == log_odds.FORGOTTEN).any(axis=0).sum())
  against = 'with' if data.retrained is not None else 'without'
  return [
    f'{models} unlearned models of {len(np.unique(data.split))} splits were '
    f'attacked on {examples} examples, of which {forgotten} are forgotten by '
    f'some model, {against} scores of retrained models for comparison. An '
    'attack that cannot tell forgotten from never-seen examples is at chance '
    '(AUC 0.5).',
  ]


def run() -> None:
  """Entry point."""
  flags.mark_flags_as_required(['scores', 'out'])
  app.run(main)


if __name__ == '__main__':
  run()
