"""Attack stored scores of models from any framework, and report.

    python -m jaxmu.attack --scores=file.npz --out=directory

No model and no training code are needed. The file holds arrays: `log_odds`
float [models, examples] or [models, examples, augmentations], or `logits` with
a last axis of classes and `labels` int [examples]; `state` int [models,
examples] (0 retained, 1 forgotten, 2 never seen, 3 excluded); `split` int
[models]; and, for the comparison with retraining, `retrained_log_odds` or
`retrained_logits` of the same form, and `original_...` for the models before
unlearning. Softmax outputs are named `probabilities` in place of `logits`.
`failed`, `retrained_failed` and `original_failed` bool [models]
mark models that diverged. docs/attacks.md explains every number.
"""

import dataclasses
import functools
import io
import logging
import os
import pathlib
import shlex
import sys
import time
import zipfile
import zlib
from collections.abc import Callable, Mapping, Sequence

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
  scores,
)
from jaxmu.attacks.interface import Attack
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

log = logging.getLogger(__name__)

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

# Populations of a file, as tables and pictures name them.
METHODS = {
  'original': results.ORIGINAL,
  'retrained': results.REFERENCE,
  'unlearned': results.UNLEARNED,
}


# What NumPy and zipfile raise for files of another form.
_BROKEN = (
  ValueError,
  zipfile.BadZipFile,
  zlib.error,
  AttributeError,
  EOFError,
  OSError,
  NotImplementedError,
  RuntimeError,
  MemoryError,
)


def load(path: str) -> dict[str, np.ndarray]:
  """Read the arrays of a file.

  Raises:
    ValueError: the file is not an .npz archive of plain arrays.
  """
  place = pathlib.Path(path).expanduser()
  if not place.is_file():
    raise ValueError(f'--scores={path}: no such file')
  try:
    archive = np.load(place, allow_pickle=False)
    if isinstance(archive, np.ndarray):
      raise ValueError('it is one array')
    with archive:
      return {key: archive[key] for key in archive.files}
  except _BROKEN as error:
    raise ValueError(
      f'--scores={path} is not an .npz file of plain arrays, or it is damaged '
      f'({error}); write it with numpy.savez(path, log_odds=..., state=..., '
      'split=...)'
    ) from error


def read(path: str) -> scores.Scores:
  """Read and check a file of scores.

  Raises:
    ValueError: the file cannot be read, or `scores.from_arrays` rejects its
      content.
  """
  return check(path, load(path))


def check(path: str, arrays: Mapping[str, np.ndarray]) -> scores.Scores:
  """Turn the arrays of a file into scores.

  Raises:
    ValueError: `scores.from_arrays` rejects them.
  """
  try:
    return scores.from_arrays(arrays)
  except ValueError as error:
    raise ValueError(f'--scores={path}: {error}') from error


def failures(data: scores.Scores) -> dict[str, tuple[int, int]]:
  """Return (failed models, all models) of populations with failed models."""
  return {
    METHODS[name]: (int(one.failed.sum()), len(one.failed))
    for name, one in data.populations.items()
    if one.failed.any()
  }


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
  directory = pathlib.Path(path).expanduser()
  try:
    directory.mkdir(parents=True, exist_ok=True)
  except OSError as error:
    raise ValueError(f'--out={path} cannot be made: {error}') from error
  if not os.access(directory, os.W_OK):
    raise ValueError(f'--out={path} cannot be written; choose another')
  return directory


@dataclasses.dataclass
class Attacked:
  """Numbers of attacks on a file.

  Attributes:
    estimates: by (method, number), in the order of the report.
    excess: paired differences to the retrained models, by the same.
    failed: the reason why an attack gave no numbers, by its name.
  """

  estimates: dict[tuple[str, str], intervals.Estimate] = dataclasses.field(
    default_factory=dict
  )
  excess: dict[tuple[str, str], intervals.Estimate] = dataclasses.field(
    default_factory=dict
  )
  failed: dict[str, str] = dataclasses.field(default_factory=dict)

  def add(self, numbers: Sequence[registry.AttackResult]) -> None:
    """Add the numbers of an attack."""
    for one in numbers:
      self.estimates[METHODS[one.population], one.metric] = one.estimate
      if one.excess is not None and not np.isnan(one.excess.value):
        self.excess[METHODS[one.population], one.metric] = one.excess

  @property
  def missing(self) -> results.Missing:
    """Why numbers are not available."""
    reasons = {
      key: estimate.note or 'not a number'
      for key, estimate in self.estimates.items()
      if np.isnan(estimate.value)
    }
    return reasons


def run_attacks(
  data: scores.Scores,
  attacks: Sequence[Attack],
  fprs: Sequence[float],
  advance: Callable[[], None] = lambda: None,
) -> Attacked:
  """Run attacks one by one; an error affects the numbers of one attack."""
  attacked = Attacked()
  for attack in attacks:
    try:
      attacked.add(registry.run(data, [attack], fprs=fprs))
    except Exception as error:  # whatever values the scores have
      log.debug('attack %s', attack.name, exc_info=True)
      attacked.failed[attack.name] = str(error) or type(error).__name__
    advance()
  return attacked


def rows(attacked: Attacked) -> list[results.Row]:
  """Turn the numbers of attacks into rows of results.csv.

  Methods are 'unlearned', 'original' and 'retrain'; metrics are named
  `<attack>_<statistic>`, and `excess_<attack>_<statistic>` is the paired
  difference to retrained models.
  """
  numbers: dict[str, dict[str, intervals.Estimate]] = {}
  for (method, metric), estimate in attacked.estimates.items():
    of_method = numbers.setdefault(method, {})
    of_method[metric] = estimate
    excess = attacked.excess.get((method, metric))
    if excess is not None:
      of_method[f'{glossary.EXCESS}{metric}'] = excess
  return results.rows(numbers)


def output_rows(
  arrays: Mapping[str, np.ndarray], group: np.ndarray
) -> list[results.Row]:
  """Compare outputs on forgotten examples with those of retrained models.

  The scale is the same number for retrained models: each is compared with that
  of the next row, on examples that neither was trained on.

  Args:
    arrays: the arrays of the file; the result is empty without logits of both
      populations.
    group: int[P], the units of intervals.
  """
  arrays = scores.with_logits(arrays)
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


def notes(attacked: Attacked) -> list[str]:
  """Say which numbers were refused or pooled, and why."""
  pooled = {
    key: 'one threshold for all models, since single models and splits have '
    'too few never-seen examples'
    for key, estimate in attacked.estimates.items()
    if estimate.pooling == 'population' and not np.isnan(estimate.value)
  }
  sentences = summary.explain_missing(attacked.missing)
  sentences += [
    sentence.replace('Not available', 'Pooled')
    for sentence in summary.explain_missing(pooled)
  ]
  return sentences + [
    f'{glossary.attack_title(name)} gave no number: {reason}.'
    for name, reason in attacked.failed.items()
  ]


def exposure_csv(data: scores.Scores) -> str:
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


def membership(data: scores.Scores) -> bytes:
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


def pictures(data: scores.Scores, problems: list[str]) -> list[html.Picture]:
  """Draw ROC, trade-off, log-odds and exposure of all populations.

  Args:
    data: the scores.
    problems: gets a sentence for each picture that cannot be drawn.
  """
  ratios = functools.cache(lambda: registry.score('ulira', data))
  return [
    *html.draw('roc', lambda: _roc(data, ratios()), problems),
    *html.draw('trade_off', lambda: _trade_off(data, ratios()), problems),
    *html.draw('log_odds', lambda: _log_odds(data), problems),
    *html.draw('vulnerability', lambda: _exposure(data), problems),
  ]


def _roc(
  data: scores.Scores, ratios: Mapping[str, np.ndarray]
) -> plots.Figure | None:
  curves = {}
  for name, ratio in ratios.items():
    one = data.populations[name]
    if not all(map(len, _by_kind(ratio, one))):
      continue
    curve = roc.curves(ratio, one.audited_state, one.group, fpr=roc.FPR_GRID)
    curves[METHODS[name]] = plots.Roc(
      fpr=curve['fpr'],
      tpr=curve['tpr'],
      low=curve['low'],
      high=curve['high'],
      supported=curve['supported'],
    )
  return plots.roc(curves) if curves else None


def _trade_off(
  data: scores.Scores, ratios: Mapping[str, np.ndarray]
) -> plots.Figure | None:
  errors = {}
  for name, ratio in ratios.items():
    kinds = _by_kind(ratio, data.populations[name])
    if all(map(len, kinds)):
      errors[METHODS[name]] = roc.trade_off(*kinds)
  remarks = {
    name: f'μ = {roc.gaussian_mu(*curve):.2f}' for name, curve in errors.items()
  }
  return plots.trade_off(errors, remarks=remarks) if errors else None


def _by_kind(
  score: np.ndarray, one: scores.PopulationScores
) -> tuple[np.ndarray, np.ndarray]:
  """Return known scores of forgotten and of never-seen points."""
  known, state = np.isfinite(score), one.audited_state
  return (
    score[known & (state == log_odds.FORGOTTEN)],
    score[known & (state == log_odds.NEVER_SEEN)],
  )


def _log_odds(data: scores.Scores) -> plots.Figure:
  return plots.log_odds(
    {
      METHODS[name]: _by_kind(one.mean, one)
      for name, one in data.populations.items()
    }
  )


def _exposure(data: scores.Scores) -> plots.Figure | None:
  if data.original is None:
    return None
  auc = {
    name: per_example.exposure(one).auc
    for name, one in data.populations.items()
  }
  return plots.vulnerability(
    auc['original'],
    auc['unlearned'],
    method=results.UNLEARNED,
    title='Exposure of single examples before and after unlearning',
    retrained=auc.get('retrained'),
  )


def command(
  scores: str, out: str, attacks: Sequence[str], fprs: Sequence[str]
) -> str:
  """Return the command line that reproduces the report."""
  words = ['python', '-m', 'jaxmu.attack', f'--scores={scores}', f'--out={out}']
  if attacks:
    words.append(f'--attacks={",".join(attacks)}')
  return shlex.join([*words, f'--fprs={",".join(fprs)}'])


def main(argv: list[str]) -> None:
  if len(argv) > 1:
    raise app.UsageError(f'unknown arguments {argv[1:]}; use --scores, --out')
  started = time.monotonic()
  try:
    fprs = parse_fprs(_FPRS.value or [])
    arrays = load(str(_SCORES.value))
    data = check(str(_SCORES.value), arrays)
    chosen = registry.choose(data, _ATTACKS.value or None)
    directory = check_directory(str(_OUT.value))
  except ValueError as error:
    sys.exit(f'error: {error}')
  with progress.Progress() as bars:
    with bars.stage('attack', total=len(chosen), unit='attacks') as stage:
      attacked = run_attacks(data, chosen, fprs, lambda: stage.advance(1))
  report = make_report(
    data,
    attacked,
    [] if _ATTACKS.value else output_rows(arrays, data.group),
    command(
      str(_SCORES.value),
      str(_OUT.value),
      _ATTACKS.value or (),
      _FPRS.value or (),
    ),
  )
  html.write_report(directory, report)
  worked = {attack.name for attack in chosen} - attacked.failed.keys()
  if 'per_example' in worked:
    files.write_text(directory / 'per_example.csv', exposure_csv(data))
  if 'ulira' in worked:
    files.write_bytes(directory / 'membership.npz', membership(data))
  tables.show_attacks(report.rows)
  for line in (*report.findings, *report.warnings):
    print(line)
  seconds = time.monotonic() - started
  print(
    f'{directory / "report.html"} explains these and all other numbers; '
    f'written after {seconds:.0f} s'
  )


def make_report(
  data: scores.Scores,
  attacked: Attacked,
  outputs: Sequence[results.Row] = (),
  command: str = '',
) -> html.Report:
  """Return the report on a file.

  Args:
    data: the scores.
    attacked: numbers of the attacks.
    outputs: of `output_rows`.
    command: the command line that reproduces the report.
  """
  problems: list[str] = []
  drawn = pictures(data, problems)
  return html.Report(
    title='Attacks on stored scores',
    lead=_lead(data),
    rows=[*rows(attacked), *outputs],
    pictures=drawn,
    command=command,
    warnings=[
      *data.warnings,
      *notes(attacked),
      *problems,
    ],
    failed=failures(data),
    missing=attacked.missing,
  )


def _lead(data: scores.Scores) -> list[str]:
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
