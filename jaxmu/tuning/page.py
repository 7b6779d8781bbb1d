"""The report of a search: pictures, the best trials, failures, the choice."""

import collections
import functools
import pathlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import optuna

from jaxmu import files, terms
from jaxmu.report import html, plots
from jaxmu.tuning import judging, records
from jaxmu.tuning.spaces import Space

_SHOWN = 20
_NAMES = {
  'retain': '|RA - target| / 3',
  'forget': '|FA - target| / 3',
  'val': '|VA - target| / 3',
  'indisc': '1 - Indisc',
}
_MEANING = {
  'norm': 'The norm combines the distances of three accuracies from their '
  'targets and one minus indiscernibility; 0 is best.',
  'validation error': 'The validation error is the share of validation images '
  'that a model trained with the recipe classifies wrongly. Unlike the '
  'reference, which fixes the recipe, this search chooses it.',
}
_LINES = {
  'norm': 'the default setting and the unchanged original models',
  'validation error': 'the recipe of the job',
}


def write(
  folder: pathlib.Path,
  rows: Sequence[records.TrialRow],
  choice: judging.Choice,
  space: Space,
  norms: Mapping[str, float],
  provenance: Mapping[str, Any],
) -> pathlib.Path:
  """Write `report.html` and `plots/*.png` of a search; return the page.

  Args:
    folder: of the search.
    rows: all trials.
    choice: the chosen setting.
    space: what was searched.
    norms: of the chosen setting, the default and the original models.
    provenance: content of the settings file.
  """
  problems: list[str] = []
  pictures = draw(rows, choice, space, norms, problems)
  method = rows[0].method
  sections = [
    (
      'choice',
      'The choice',
      _choice(rows, choice, norms, provenance.get('regret'), problems),
    ),
    ('pictures', 'Pictures', html.figures(pictures)),
    ('trials', 'The best trials', _best(rows, space)),
    ('made', 'How it was made', html.facts(dict(provenance))),
  ]
  count = len({row.initialisation for row in rows})
  lead = [
    f'{len(rows)} trials of {method} on '
    f'{terms.count(count, "initialisation")}. {_MEANING[_what(rows)]}'
  ]
  for picture in pictures:
    files.write_bytes(folder / 'plots' / f'{picture.name}.png', picture.png)
  page = html.page(f'Search of {method}', lead, sections)
  return files.write_text(folder / 'report.html', page)


def draw(
  rows: Sequence[records.TrialRow],
  choice: judging.Choice,
  space: Space,
  norms: Mapping[str, float],
  problems: list[str],
) -> list[html.Picture]:
  """Return the pictures; one that cannot be drawn becomes a problem."""
  functions = drawings(rows, choice, space, norms)
  return [
    picture
    for name, function in functions.items()
    for picture in html.draw(
      *(f'search_{name}', function, problems),
      what=_what(rows),
      lines=_LINES[_what(rows)],
    )
  ]


def drawings(
  rows: Sequence[records.TrialRow],
  choice: judging.Choice,
  space: Space,
  norms: Mapping[str, float],
) -> dict[str, Callable[[], plots.Figure]]:
  """Return a function for each picture that the trials allow, by name."""
  fine = [t for t, row in enumerate(rows) if not row.failed]
  by_study = {
    f'initialisation {k}': np.array(
      [row.norm for row in rows if row.initialisation == k]
    )
    for k in sorted({row.initialisation for row in rows})
  }
  references = {
    f'{name} setting' if name == 'default' else f'{name} models': value
    for name, value in norms.items()
    if name != 'chosen'
  }
  values = np.array([rows[t].objectives for t in fine])
  chosen = fine.index(choice.trial) if choice.trial in fine else -1
  axes = _axes([rows[t] for t in fine])
  finite = np.array([rows[t].norm for t in fine])
  functions: dict[str, Callable[[], plots.Figure]] = {
    'history': lambda: plots.history(
      by_study, references, what=_what(rows).capitalize()
    )
  }
  if len(fine) > 1 and values.shape[1] > 1:
    functions['front'] = functools.partial(
      plots.front, values, [_NAMES[c] for c in records.COMPONENTS], chosen
    )
  if len(fine) > 1 and axes:
    functions['parallel'] = functools.partial(
      plots.parallel, axes, finite, [n for n in axes if _is_log(space, n)]
    )
    shares = importances([rows[t] for t in fine], space)
    if shares:
      functions['importances'] = functools.partial(plots.importances, shares)
  return functions


def _what(rows: Sequence[records.TrialRow]) -> str:
  return records.title(len(rows[0].objectives))


def importances(
  rows: Sequence[records.TrialRow], space: Space
) -> dict[str, float]:
  """Return the importance of each searched hyper-parameter for the norm.

  Args:
    rows: trials that did not fail.
    space: what was searched.

  Returns:
    Shares that sum to one; none where fewer than two hyper-parameters vary or
    fewer than ten trials are given.
  """
  varied = {
    name: kind
    for name, kind in space.searched.items()
    if not kind.single() and len({str(r.setting[name]) for r in rows}) > 1
  }
  if len(varied) < 2 or len(rows) < 10:
    return {}
  study = optuna.create_study()
  study.add_trials(
    [
      optuna.trial.create_trial(
        params={name: row.setting[name] for name in varied},
        distributions=varied,
        value=row.norm,
      )
      for row in rows
    ]
  )
  evaluator = optuna.importance.FanovaImportanceEvaluator(seed=0)
  return optuna.importance.get_param_importances(study, evaluator=evaluator)


def _axes(rows: Sequence[records.TrialRow]) -> dict[str, np.ndarray]:
  """Return the values of all numbers that differ between trials."""
  axes = {}
  for name in rows[0].setting if rows else ():
    values = [row.setting[name] for row in rows]
    if all(isinstance(v, int | float) for v in values) and len({*values}) > 1:
      axes[name] = np.array(values, float)
  return axes


def _is_log(space: Space, name: str) -> bool:
  return bool(getattr(space.searched.get(name), 'log', False))


def _choice(
  rows: Sequence[records.TrialRow],
  choice: judging.Choice,
  norms: Mapping[str, float],
  regret: Mapping[str, float] | None,
  problems: Sequence[str],
) -> str:
  setting = html.facts(dict(choice.setting))
  table = html.plain(
    ['models', f'mean {_what(rows)}'], [[k, v] for k, v in norms.items()]
  )
  states = collections.Counter(row.state for row in rows if not row.usable)
  sentences = [
    f'{terms.count(count, "trial")}: {state}'
    for state, count in states.most_common()
  ]
  if choice.finalists:
    sentences.append(
      f'{terms.count(len(choice.finalists), "setting")} and the default were '
      f'judged on initialisations that were not searched: mean {_what(rows)}s '
      + ', '.join(f'{mean:.4f}' for mean in choice.means)
    )
  if choice.trial is None:
    sentences.append('The default setting won')
  if regret:
    sentences.append(
      'Compared with retrained models, which the search did not use, the norm '
      f'of the chosen setting is {regret["chosen"]:.4f}, and '
      f'{regret["best"]:.4f} of the setting that the same trials give with '
      f'them: a regret of {regret["regret"]:.4f}'
    )
  if norms['default'] < norms['chosen']:
    sentences.append(
      f'The default setting has a smaller {_what(rows)} than the chosen one; '
      'search longer, or use the default'
    )
  return setting + table + f'<ul>{html.bullets([*sentences, *problems])}</ul>'


def _best(rows: Sequence[records.TrialRow], space: Space) -> str:
  best = sorted(rows, key=lambda row: row.norm)[:_SHOWN]
  names = [name for name in space.searched if name in rows[0].setting]
  facts = ('initialisation', 'number', 'norm', 'retain', 'forget', 'val')
  table = html.plain(
    [*facts, 'indisc', 'state', *names],
    [
      [
        *(getattr(row, fact) for fact in facts),
        row.indisc,
        row.state,
        *(row.setting[name] for name in names),
      ]
      for row in best
    ],
  )
  return table + '<p class="soft">trials.csv holds all of them.</p>'
