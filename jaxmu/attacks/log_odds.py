"""Log-odds of the true class, the score behind every attack.

    log_odds = z_y - logsumexp_{k != y} z_k = log(p_y / (1 - p_y))

They are computed from logits in float64 and never through p: in float32,
`log(p / (1 - p))` is infinite from log-odds of 17 on. One stored array of
log-odds (f32[P, N] or f32[P, N, A]) is all that most attacks need;
cross-entropy and confidence are monotone functions of it. `statistic` and
`signals` give other scores for comparison with published attacks. All are
larger for examples that look more like members.

Attacks compare the entries that `state` marks as forgotten (1) with those that
it marks as never seen (2). The functions at the end of this file rearrange a
population so that the same attack answers another question:

  unchanged           forgotten against never seen, same unlearner (U-LiRA)
  against_retrained   unlearned against retrained on the same forgotten examples
                      (Hayes et al. 2024, LiRA-Forget, the 2023 competition)
  members             training members against never seen (LiRA on originals)
  retained            retained against never seen: leakage of the retain set

The first does not notice an unlearner that shifts all unseen examples alike;
the second also reacts to global side effects such as lower test accuracy.
"""

from typing import Literal, get_args

import numpy as np
from jaxtyping import Bool, Float, Float64, Int, Int8, Integer
from scipy import special

from jaxmu.terms import EXCLUDED, FORGOTTEN, NEVER_SEEN, RETAINED

Statistic = Literal['log_odds', 'loss', 'margin', 'correctness']
STATISTICS: tuple[Statistic, ...] = get_args(Statistic)

# Used when an array has no finite entry: log of the smallest float32.
MOST_WRONG = -103.0

_CHUNK = 1 << 22  # logits converted to float64 at a time (32 MiB)


def log_odds(
  logits: Float[np.ndarray, '*P N C'], labels: Integer[np.ndarray, ' N']
) -> Float64[np.ndarray, '*P N']:
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
  logits: Float[np.ndarray, '*P N C'],
  labels: Integer[np.ndarray, ' N'],
  *,
  kind: Statistic = 'log_odds',
) -> Float64[np.ndarray, '*P N']:
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


def signals(
  logits: Float[np.ndarray, '*P N C'], labels: Integer[np.ndarray, ' N']
) -> dict[str, Float64[np.ndarray, '*P N']]:
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
  score = log_odds(logits, labels)
  z = np.asarray(logits, np.float64)
  label = np.asarray(labels)
  label = label[:, None] if z.ndim == 4 else label
  label = np.broadcast_to(label, score.shape)
  with np.errstate(invalid='ignore'):
    log_p = special.log_softmax(z, axis=-1)
  p = np.exp(log_p)
  return {
    'loss': log_confidence(score),
    'confidence': special.expit(score),
    'entropy': special.xlogy(p, p).sum(-1),
    'modified_entropy': _modified_entropy(z, p, label, score),
    'correctness': statistic(logits, labels, kind='correctness'),
  }


def _modified_entropy(z, p, label, score) -> np.ndarray:
  """Return (1 - p_y) log p_y + sum_{k != y} p_k log(1 - p_k)."""
  with np.errstate(divide='ignore', invalid='ignore'):
    log_not_p = np.log1p(-p)
    # 1 - p cancels for the largest class alone; its log-odds do not.
    top = z.argmax(-1)
    log_not_top = log_confidence(-of_class(z, top))
  np.put_along_axis(log_not_p, top[..., None], log_not_top[..., None], -1)
  terms = p * log_not_p
  np.put_along_axis(terms, label[..., None], 0.0, -1)
  true_term = special.expit(-score) * log_confidence(score)
  return true_term + terms.sum(-1)


def loss_from_log_odds(
  log_odds: Float[np.ndarray, '*S'],
) -> Float64[np.ndarray, '*S']:
  """Return the cross-entropy, softplus(-log_odds), exact for any value."""
  with np.errstate(invalid='ignore'):
    return np.logaddexp(0.0, -np.asarray(log_odds, np.float64))


def log_confidence(
  log_odds: Float[np.ndarray, '*S'],
) -> Float64[np.ndarray, '*S']:
  """Return log p of the true class, -softplus(-log_odds) (float64)."""
  return -loss_from_log_odds(log_odds)


def of_class(
  logits: Float64[np.ndarray, '*S C'], label: Integer[np.ndarray, '*S']
) -> Float64[np.ndarray, '*S']:
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


def replace_non_finite(
  score: Float[np.ndarray, '*S'],
) -> tuple[Float[np.ndarray, '*S'], int]:
  """Set non-finite scores to the most wrong finite one and count them.

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
      f'classes they must be in 0..{classes - 1}'
    )


def against_retrained(
  score: Float[np.ndarray, 'P N *A'],
  retrained: Float[np.ndarray, 'P N *A'],
  state: Int8[np.ndarray, 'P N'],
  group: Integer[np.ndarray, ' P'],
  retrained_state: Int8[np.ndarray, 'P N'] | None = None,
) -> tuple[
  Float[np.ndarray, 'Q N *A'],
  Int8[np.ndarray, 'Q N'],
  Integer[np.ndarray, ' Q'],
]:
  """Stack unlearned and retrained models to compare forgotten examples.

  For a null check pass a second retrained population as `score`.

  Args:
    score: float[P, N] or float[P, N, A] of the unlearned models.
    retrained: the same of the retrained models; row p was retrained without
      the forget set of row p.
    state: int8[P, N].
    group: int[P].
    retrained_state: int8[P, N] where it differs from `state`, as it does for
      models that failed; `state` if None.

  Returns:
    Score [2P, N(, A)], state int8[2P, N] (1 for U and 2 for R on forgotten
    examples, 3 elsewhere) and group int[2P]. A group contains both kinds, so
    that leaving it out does not reveal the kind of a model.

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
  score: Float[np.ndarray, 'P N'], where: Bool[np.ndarray, 'P N'], count: int
) -> tuple[Float[np.ndarray, 'count S'], Int[np.ndarray, ' S']]:
  """Collect the same number of observations of every example.

  Args:
    score: float[P, N].
    where: bool[P, N], which observations to use.
    count: how many to take of each example, the first ones.

  Returns:
    float[count, S] and the S examples with at least that many, int[S].
  """
  examples = np.flatnonzero(where.sum(axis=0) >= count)
  order = np.argsort(~where[:, examples], axis=0, kind='stable')[:count]
  return np.take_along_axis(score[:, examples], order, axis=0), examples


def complementary_pairs(
  state: Int8[np.ndarray, 'P N'], split: Integer[np.ndarray, ' P']
) -> Integer[np.ndarray, ' P'] | None:
  """Return pairs of splits, each of which trains on what the other leaves out.

  Such a pair has to be left out together: with one of the two gone, the counts
  that remain show in which of them an example was trained on.

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
    others = [
      t
      for t in seen
      if (seen[s] == unseen[t]).all() and (unseen[s] == seen[t]).all()
    ]
    if len(others) != 1:
      return None
    partner[s] = min(s, others[0])
  return np.array([partner[s] for s in split])


def members(state: Int8[np.ndarray, 'P N']) -> Int8[np.ndarray, 'P N']:
  """Mark all training members, retained or forgotten, as 1."""
  return np.where(state == RETAINED, FORGOTTEN, state).astype(np.int8)


def retained(state: Int8[np.ndarray, 'P N']) -> Int8[np.ndarray, 'P N']:
  """Mark retained examples as 1 and never-seen ones as 2, exclude forgotten."""
  swapped = np.where(state == FORGOTTEN, EXCLUDED, state)
  return np.where(state == RETAINED, FORGOTTEN, swapped).astype(np.int8)
