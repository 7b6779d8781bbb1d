"""A classifier on all one-model signals together.

What loss, entropy and the others know jointly about one model: scores of
held-out examples from five-fold cross-validation, so that each example is
judged by a classifier that has not seen it. Still one rule for all examples.
"""

from typing import Literal

import numpy as np
from sklearn import (
  ensemble,
  linear_model,
  model_selection,
  pipeline,
  preprocessing,
)

Kind = Literal['logistic', 'gbm']
FOLDS = 5


def combined(
  features: np.ndarray,
  member: np.ndarray,
  *,
  kind: Kind = 'logistic',
  seed: int = 0,
) -> np.ndarray:
  """Computes held-out scores of one model's examples.

  Args:
    features: f64[n, K] signals of `population.signals`, finite.
    member: bool[n].
    kind: 'logistic', on standardised features, or 'gbm', boosted trees (a
      hundred times slower).
    seed: of folds and trees.

  Returns:
    f64[n] log-odds of membership, larger for member; balanced classes are
    assumed, whatever their numbers.

  Raises:
    ValueError: unknown kind or fewer than five examples of a side.
  """
  if kind not in ('logistic', 'gbm'):
    raise ValueError(f"kind is {kind!r}; use 'logistic' or 'gbm'.")
  member = np.asarray(member, bool)
  if min(member.sum(), (~member).sum()) < FOLDS:
    raise ValueError(
      f'{member.sum()} members and {(~member).sum()} others; {FOLDS} of each '
      'are needed.'
    )
  folds = model_selection.StratifiedKFold(
    FOLDS, shuffle=True, random_state=seed
  )
  out = np.empty(len(member))
  for train, test in folds.split(features, member):
    model = _model(kind, seed)
    model.fit(features[train], member[train])
    out[test] = model.decision_function(features[test])
  return out


def _model(kind: Kind, seed: int):
  if kind == 'gbm':
    return ensemble.HistGradientBoostingClassifier(
      max_iter=50, class_weight='balanced', random_state=seed
    )
  return pipeline.make_pipeline(
    preprocessing.StandardScaler(),
    linear_model.LogisticRegression(class_weight='balanced', max_iter=1000),
  )
