"""The one score behind every attack: log-odds of the true class.

    phi = z_y - logsumexp_{k != y} z_k = log(p_y / (1 - p_y))

Computed from logits in float64 and never through p: in float32,
`log(p / (1 - p))` is infinite from phi = 17 on. One stored array of phi
(f32[P, N] or f32[P, N, A]) is all that the attacks of this package need;
cross-entropy and confidence are monotone functions of it.

The other statistics of `statistic` exist for comparison with published
attacks. All are oriented so that larger means "looks more like a member".

Which two kinds of observations an attack has to tell apart.

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

from typing import Literal

import numpy as np
from scipy import special

from jaxmu.types import EXCLUDED, FORGOTTEN, NEVER_SEEN, RETAINED

Statistic = Literal['log_odds', 'loss', 'margin', 'correctness']
STATISTICS: tuple[Statistic, ...] = (
  'log_odds',
  'loss',
  'margin',
  'correctness',
)

# Used when an array has no finite entry: log of the smallest float32.
MOST_WRONG = -103.0

_CHUNK = 1 << 22  # logits converted to float64 at a time (32 MiB)


def log_odds(logits: np.ndarray, labels: np.ndarray) -> np.ndarray:
  """Compute the log-odds of the true class.

  Args:
    logits: float[N, C], float[P, N, C] or float[P, N, A, C] (A augmentations);
      cast bfloat16 to float32 first.
    labels: int[N], true class of each example.

  Returns:
    float64 array of the shape of `logits` without its last axis. Non-finite
    logits give non-finite values: pass the result to `replace_non_finite`.

  Raises:
    ValueError: wrong rank, fewer than two classes, or labels that do not fit.
  """
  return _over_classes(logits, labels, of_class)


def statistic(
  logits: np.ndarray, labels: np.ndarray, *, kind: Statistic = 'log_odds'
) -> np.ndarray:
  """Compute one score per example, larger for more member-like.

  Args:
    logits: as for `log_odds`.
    labels: int[N].
    kind: 'log_odds'; 'loss', the negative cross-entropy; 'margin', the true
      logit minus the largest other one; 'correctness', 1 where the true class
      has the largest logit (the first one wins ties; NaN is wrong), else 0.

  Returns:
    float64 array of the shape of `logits` without its last axis.

  Raises:
    ValueError: unknown kind, or as for `log_odds`.
  """
  if kind == 'log_odds':
    return log_odds(logits, labels)
  if kind == 'loss':
    return -loss_from_log_odds(log_odds(logits, labels))
  if kind == 'margin':
    return _over_classes(logits, labels, _masked_margin)
  if kind == 'correctness':
    return _over_classes(logits, labels, _is_correct)
  raise ValueError(f'kind is {kind!r}; choose one of {STATISTICS}')


def signals(logits: np.ndarray, labels: np.ndarray) -> dict[str, np.ndarray]:
  """Compute the classical one-model attack scores.

  Args:
    logits: float[N, C], float[P, N, C] or float[P, N, A, C].
    labels: int[N].

  Returns:
    Arrays without the last axis of `logits`, all larger for more member-like:
    'loss' (negative cross-entropy), 'confidence' (p of the true class),
    'entropy' and 'modified_entropy' (negated; Song and Mittal 2021) and
    'correctness'. Non-finite logits give non-finite values.
  """
  phi = log_odds(logits, labels)
  z = np.asarray(logits, np.float64)
  label = np.asarray(labels)
  label = label[:, None] if z.ndim == 4 else label
  label = np.broadcast_to(label, phi.shape)
  with np.errstate(invalid='ignore'):
    log_p = special.log_softmax(z, axis=-1)
  p = np.exp(log_p)
  return {
    'loss': log_confidence(phi),
    'confidence': special.expit(phi),
    'entropy': special.xlogy(p, p).sum(-1),
    'modified_entropy': _modified_entropy(z, p, label, phi),
    'correctness': statistic(logits, labels, kind='correctness'),
  }


def _modified_entropy(z, p, label, phi) -> np.ndarray:
  """Return (1 - p_y) log p_y + sum_{k != y} p_k log(1 - p_k)."""
  with np.errstate(divide='ignore', invalid='ignore'):
    log_not_p = np.log1p(-p)
    # 1 - p cancels for the largest class alone; its log-odds do not.
    top = z.argmax(-1)
    log_not_top = log_confidence(-of_class(z, top))
  np.put_along_axis(log_not_p, top[..., None], log_not_top[..., None], -1)
  terms = p * log_not_p
  np.put_along_axis(terms, label[..., None], 0.0, -1)
  true_term = special.expit(-phi) * log_confidence(phi)
  return true_term + terms.sum(-1)


def loss_from_log_odds(log_odds: np.ndarray) -> np.ndarray:
  """Return the cross-entropy, softplus(-phi), exact for any phi (float64)."""
  with np.errstate(invalid='ignore'):
    return np.logaddexp(0.0, -np.asarray(log_odds, np.float64))


def log_confidence(log_odds: np.ndarray) -> np.ndarray:
  """Return log p of the true class, -softplus(-phi) (float64)."""
  return -loss_from_log_odds(log_odds)


def of_class(logits: np.ndarray, label: np.ndarray) -> np.ndarray:
  """Return the log-odds of one class per entry, any leading shape.

  Args:
    logits: f64[..., C].
    label: int[...].
  """
  true, others = _split_true(logits, label)
  top = others.max(axis=-1)
  others -= top[..., None]
  # With two classes the sum is exp(0) = 1: the exact logit difference.
  return true - (top + np.log(np.exp(others).sum(axis=-1)))


def replace_non_finite(score: np.ndarray) -> tuple[np.ndarray, int]:
  """Sets non-finite scores to the most wrong finite one and counts them.

  A model that outputs NaN or infinity stays in every average, as one that is
  wrong about those examples; dropping it would hide the failure.

  Args:
    score: float array of any shape.

  Returns:
    The array (the same object if it is finite) and the number of replaced
    entries. The replacement is the smallest finite score of the array, or
    `MOST_WRONG` if there is none.
  """
  finite = np.isfinite(score)
  count = int(finite.size - np.count_nonzero(finite))
  if count == 0:
    return score, 0
  worst = score[finite].min() if count < finite.size else MOST_WRONG
  return np.where(finite, score, worst).astype(score.dtype), count


def _over_classes(logits, labels, function) -> np.ndarray:
  """Apply `function(logits[..., C], label[...])` by chunks of members."""
  logits = np.asarray(logits)
  labels = np.asarray(labels)
  _check(logits, labels)
  if logits.ndim == 2:
    return _over_classes(logits[None], labels, function)[0]
  label = labels[:, None] if logits.ndim == 4 else labels
  label = np.broadcast_to(label, logits.shape[1:-1])
  out = np.empty(logits.shape[:-1], np.float64)
  step = max(1, _CHUNK // max(1, int(np.prod(logits.shape[1:]))))
  with np.errstate(invalid='ignore'):
    for start in range(0, len(logits), step):
      part = logits[start : start + step].astype(np.float64)
      out[start : start + step] = function(
        part, np.broadcast_to(label, part.shape[:-1])
      )
  return out


def _split_true(logits, label):
  """Return the true logit and a copy with -inf in its place."""
  index = label[..., None]
  true = np.take_along_axis(logits, index, axis=-1)[..., 0]
  others = logits.copy()
  np.put_along_axis(others, index, -np.inf, axis=-1)
  return true, others


def _masked_margin(logits, label):
  true, others = _split_true(logits, label)
  return true - others.max(axis=-1)


def _is_correct(logits, label):
  correct = (logits.argmax(axis=-1) == label) & ~np.isnan(logits).any(-1)
  return correct.astype(np.float64)


def _check(logits: np.ndarray, labels: np.ndarray) -> None:
  if logits.ndim not in (2, 3, 4):
    raise ValueError(
      f'logits have shape {logits.shape}; expected [examples, classes], '
      '[models, examples, classes] or '
      '[models, examples, augmentations, classes]'
    )
  examples = logits.shape[0 if logits.ndim == 2 else 1]
  classes = logits.shape[-1]
  if classes < 2:
    raise ValueError(
      f'logits have {classes} class on their last axis; log-odds need at '
      'least 2. For a binary model with one output z pass [-z/2, z/2]'
    )
  if labels.shape != (examples,) or labels.dtype.kind not in 'iu':
    raise ValueError(
      f'labels are {labels.dtype}{list(labels.shape)}; expected one integer '
      f'for each of the {examples} examples of logits {logits.shape}'
    )
  if examples and not (0 <= labels.min() and labels.max() < classes):
    raise ValueError(
      f'labels run from {labels.min()} to {labels.max()}; with {classes} '
      f'classes they must lie in 0..{classes - 1}'
    )


def against_retrained(
  score: np.ndarray,
  retrained: np.ndarray,
  state: np.ndarray,
  group: np.ndarray,
  retrained_state: np.ndarray | None = None,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
  """Stack unlearned and retrained models: forgotten by U against R.

  For a null check pass a second retrained population as `score`.

  Args:
    score: float[P, N] or float[P, N, A] of the unlearned models.
    retrained: the same of the retrained models; row p was retrained without
      the forget set of row p.
    state: int8[P, N].
    group: int[P].
    retrained_state: int8[P, N] where it differs from `state`, which it does for
      models that failed.

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
  other = state if retrained_state is None else retrained_state
  stacked = np.concatenate(
    [
      np.where(state == FORGOTTEN, FORGOTTEN, EXCLUDED),
      np.where(other == FORGOTTEN, NEVER_SEEN, EXCLUDED),
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
