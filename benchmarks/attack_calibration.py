"""Check the calibration of each attack without a leak and with a known one.

    python benchmarks/attack_calibration.py [--splits=16 --repeats=100]

Synthetic populations: complementary split pairs, disjoint forget sets that
cover the training half, Gaussian log-odds with separate means and scales per
example, correlated within splits (0.7). The leak shifts forgotten scores by
`shift` scales. Printed: mean over repeats of AUC and of TPR at 10% FPR with
standard errors, as a Markdown table. One table row per attack; a calibrated
attack has 0.5 in the null columns, and at most (floor(0.1 n) + 1) / (n + 1)
with n unseen scores for the threshold: .106 for the 140 here. The numbers are
also written to benchmarks/attack_calibration.csv; with --only, those of some
attacks replace their rows there.
"""

import argparse
import csv
import pathlib
from collections.abc import Callable

import numpy as np
import table
from scipy import special

from jaxmu.attacks import density, likelihood, rmia, roc, single_model
from jaxmu.attacks import log_odds as log_odds_lib

TABLE = pathlib.Path(__file__).with_suffix('.csv')
WITHIN = 0.7  # correlation of models of one split
FPR = 0.1
COLUMNS = ('null_auc', 'null_tpr', 'leak_auc', 'leak_tpr')
POPULATION = 40  # examples that no model has seen

Population = tuple[np.ndarray, np.ndarray, np.ndarray]


def states(rng, splits: int, draws: int, examples: int):
  """Make states int8[P, N] and splits int[P]."""
  state = np.zeros((splits * draws, examples), np.int8)
  audited = examples - POPULATION
  state[:, audited:] = log_odds_lib.EXCLUDED
  for pair in range(splits // 2):
    order = rng.permutation(audited)
    halves = order[: audited // 2], order[audited // 2 :]
    for side in (0, 1):
      parts = np.array_split(rng.permutation(halves[side]), draws)
      for draw, part in enumerate(parts):
        model = (2 * pair + side) * draws + draw
        state[model, halves[1 - side]] = log_odds_lib.NEVER_SEEN
        state[model, part] = log_odds_lib.FORGOTTEN
  return state, np.repeat(np.arange(splits), draws)


def log_odds(rng, state, split, mean, scale, shift: float) -> np.ndarray:
  """Make log-odds f64[P, N], shifted where forgotten."""
  shared = rng.standard_normal((split.max() + 1, state.shape[1]))[split]
  own = rng.standard_normal(state.shape)
  noise = np.sqrt(WITHIN) * shared + np.sqrt(1 - WITHIN) * own
  return mean + scale * (noise + shift * (state == log_odds_lib.FORGOTTEN))


def attacks() -> dict[str, Callable[[Population, np.ndarray], Population]]:
  """Return name -> (population, retrained scores) -> scores to report."""

  def plain(function, **options):
    def run(population, retrained):
      del retrained
      scores, state, split = population
      return (
        function(scores, state, split // 2, **options)[0],
        state,
        split // 2,
      )

    return run

  def by_split(population, retrained):
    del retrained
    scores, state, split = population
    return likelihood.ulira(scores, state, split)[0], state, split // 2

  def against_retrained(population, retrained):
    scores, state, split = population
    return likelihood.lira_forget(scores, retrained, state, split // 2)

  def raw(population, retrained):
    del retrained
    scores, state, split = population
    return scores, state, split // 2

  def combined(population, retrained):
    del retrained
    scores, state, split = population
    others = np.random.default_rng(0).normal(size=(*scores.shape, 2))
    true = scores + special.logsumexp(others, axis=-1)
    logits = np.concatenate([true[..., None], others], axis=-1)
    labels = np.zeros(state.shape[1], int)
    signals = log_odds_lib.signals(logits, labels)
    features = np.stack([*signals.values()], axis=-1)
    out = np.full(state.shape, np.nan)
    for m, row in enumerate(state):
      used = np.flatnonzero((row == 1) | (row == 2))
      out[m, used] = single_model.combined(features[m, used], row[used] == 1)
    return single_model.by_fold(out, state, split // 2)

  def released(population, retrained):
    del retrained
    scores, state, split = population
    correct = scores > 0
    forgotten = likelihood.reference_ulira(correct, state)
    swapped = np.where(state == 2, 1, np.where(state == 1, 2, state))
    # The released code never scores unseen entries; its rule applied to them:
    unseen = 1 - likelihood.reference_ulira(correct, swapped)
    return np.where(state == 1, forgotten, unseen), state, split // 2

  return {
    'U-LiRA (pair left out)': plain(likelihood.ulira),
    'U-LiRA, per-example variance': plain(
      likelihood.ulira, variance='per_example'
    ),
    'U-LiRA, global variance': plain(likelihood.ulira, variance='global'),
    'U-LiRA, Student': plain(likelihood.ulira, variance='student'),
    'U-LiRA, normal-inverse-gamma': plain(
      likelihood.ulira, variance='normal_inverse_gamma'
    ),
    'U-LiRA against retrained': against_retrained,
    'LiRA options (median, per example)': plain(
      likelihood.ulira, variance='per_example', location='median'
    ),
    'LiRA offline, two-sided': plain(likelihood.lira_offline),
    'LiRA offline, one-sided': plain(likelihood.lira_offline, side='one'),
    'RMIA offline': plain(rmia.rmia),
    'RMIA online': plain(rmia.rmia, rule='online'),
    'KDE': plain(density.kde),
    'histogram, 20 bins': plain(density.histogram),
    'loss threshold': raw,
    'classifier on all signals': combined,
    '*not valid:* U-LiRA, split left out': by_split,
    '*not valid:* U-LiRA, model left out': plain(likelihood.ulira, mode='loo'),
    '*not valid:* U-LiRA, in sample': plain(likelihood.ulira, mode='in_sample'),
    '*not valid:* released rule': released,
  }


def study(
  splits: int, repeats: int, shift: float, only: str = '', examples: int = 320
):
  """Return attack -> f64[repeats, 2, 2]: null and leak, AUC and TPR."""
  chosen = {name: a for name, a in attacks().items() if only in name}
  found: dict[str, list] = {name: [] for name in chosen}
  for repeat in range(repeats):
    rng = np.random.default_rng(repeat)
    state, split = states(rng, splits, 2, examples)
    mean = 3 * rng.standard_normal(examples)
    scale = np.exp(0.5 * rng.standard_normal(examples))

    def draw(shift, state=state, split=split, mean=mean, scale=scale, rng=rng):
      return log_odds(rng, state, split, mean, scale, shift)

    retrained = draw(0.0)
    populations = [(draw(s), state, split) for s in (0.0, shift)]
    for name, attack in chosen.items():
      pair = []
      for population in populations:
        report = roc.roc_report(*attack(population, retrained), fprs=(FPR,))
        pair.append([report['auc'].value, report[f'tpr_{FPR:g}'].value])
      found[name].append(pair)
  return {name: np.array(values) for name, values in found.items()}


def main() -> None:
  parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
  parser.add_argument('--splits', type=int, default=16)
  parser.add_argument('--repeats', type=int, default=100)
  parser.add_argument('--shift', type=float, default=0.7)
  parser.add_argument('--only', default='', help='part of the names of attacks')
  options = parser.parse_args()
  found = study(options.splits, options.repeats, options.shift, options.only)
  print(
    f'{options.splits} splits of 2 forget sets, {options.repeats} repeats, '
    f'leak {options.shift:g} scales\n'
  )
  print('| attack | null AUC | null TPR@10% | leak AUC | leak TPR@10% |')
  print('|---|---|---|---|---|')
  rows: list[dict] = []
  for name, values in found.items():
    mean = np.nanmean(values, axis=0)
    error = np.nanstd(values, axis=0, ddof=1) / np.sqrt(len(values))
    cells = [
      f'{m:.3f} ± {e:.3f}'.replace('0.', '.')
      for m, e in zip(mean.ravel(), error.ravel(), strict=True)
    ]
    print(f'| {name} | {" | ".join(cells)} |')
    row: dict[str, object] = {'attack': name.replace('*', '')}
    for column, m, e in zip(COLUMNS, mean.ravel(), error.ravel(), strict=True):
      row |= {column: f'{m:.4f}', f'{column}_error': f'{e:.4f}'}
    rows.append(row)
  made = {row['attack']: {**row, **table.made(TABLE)} for row in rows}
  if options.only:
    with TABLE.open(newline='') as file:
      made = {row['attack']: row for row in csv.DictReader(file)} | made
  order = [name.replace('*', '') for name in attacks()]
  table.write(
    TABLE, sorted(made.values(), key=lambda r: order.index(r['attack']))
  )


if __name__ == '__main__':
  main()
