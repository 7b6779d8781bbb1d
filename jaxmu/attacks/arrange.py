"""Which two kinds of observations an attack has to tell apart.

Attacks read `state` as 1 against 2. These functions arrange a population so
that the same attack answers another question:

  as it is            forgotten against never seen, same unlearner (U-LiRA)
  against_retrained   unlearned against retrained on the same forgotten examples
                      (Hayes et al. 2024, LiRA-Forget, the 2023 competition)
  members             training members against never seen (LiRA on originals)
  retained            retained against never seen: leakage of the retain set

The first is blind to an unlearner that shifts all unseen examples alike, the
second also fires on global side effects such as lower test accuracy.
"""

import numpy as np

from jaxmu.core.states import EXCLUDED, FORGOTTEN, NEVER_SEEN, RETAINED


def against_retrained(
  score: np.ndarray,
  retrained: np.ndarray,
  state: np.ndarray,
  group: np.ndarray,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
  """Stack unlearned and retrained models: forgotten by U against R.

  For a null check pass a second retrained population as `score`.

  Args:
    score: float[P, N] or float[P, N, A] of the unlearned models.
    retrained: the same of the retrained models; row p was retrained without
      the forget set of row p.
    state: int8[P, N].
    group: int[P].

  Returns:
    Score [2P, N(, A)], state int8[2P, N] (1 for U and 2 for R on forgotten
    examples, 3 elsewhere) and group int[2P]; a left-out group takes both kinds
    with it, so that none can be told by what is missing.

  Raises:
    ValueError: shapes that do not fit.
  """
  score, retrained, state = map(np.asarray, (score, retrained, state))
  if retrained.shape != score.shape:
    raise ValueError(
      f'retrained scores have shape {retrained.shape}, unlearned ones '
      f'{score.shape}; expected one retrained model for each unlearned one'
    )
  forgotten = state == FORGOTTEN
  stacked = np.concatenate(
    [
      np.where(forgotten, FORGOTTEN, EXCLUDED),
      np.where(forgotten, NEVER_SEEN, EXCLUDED),
    ]
  )
  return (
    np.concatenate([score, retrained]),
    stacked.astype(np.int8),
    np.concatenate([group, group]),
  )


def gather(
  score: np.ndarray, where: np.ndarray, count: int
) -> tuple[np.ndarray, np.ndarray]:
  """Collect the same number of observations of every example.

  Args:
    score: float[P, N].
    where: bool[P, N], the observations that count.
    count: how many to take of each example, the first ones.

  Returns:
    float[count, S] and the S examples that have so many, int[S].
  """
  examples = np.flatnonzero(where.sum(axis=0) >= count)
  order = np.argsort(~where[:, examples], axis=0, kind='stable')[:count]
  return np.take_along_axis(score[:, examples], order, axis=0), examples


def complementary_pairs(
  state: np.ndarray, split: np.ndarray
) -> np.ndarray | None:
  """Find splits that train on exactly what another one leaves out.

  Such a pair has to be left out together: with one of the two gone, the counts
  that remain tell on which side an example was there.

  Args:
    state: int8[P, N].
    split: int[P].

  Returns:
    int[P], the pair of each model, or None unless every split has exactly one
    complement.
  """
  seen, unseen = {}, {}
  for s in np.unique(split):
    of_split = state[split == s]
    seen[s] = ((of_split == RETAINED) | (of_split == FORGOTTEN)).any(axis=0)
    unseen[s] = (of_split == NEVER_SEEN).any(axis=0)
  partner = {}
  for s in seen:
    found = [
      t
      for t in seen
      if (seen[s] == unseen[t]).all() and (unseen[s] == seen[t]).all()
    ]
    if len(found) != 1:
      return None
    partner[s] = min(s, found[0])
  return np.array([partner[s] for s in split])


def members(state: np.ndarray) -> np.ndarray:
  """Mark all training members, retained or forgotten, as 1."""
  return np.where(state == RETAINED, FORGOTTEN, state).astype(np.int8)


def retained(state: np.ndarray) -> np.ndarray:
  """Mark retained examples as 1 and never seen as 2, without forgotten."""
  swapped = np.where(state == FORGOTTEN, EXCLUDED, state)
  return np.where(state == RETAINED, FORGOTTEN, swapped).astype(np.int8)
