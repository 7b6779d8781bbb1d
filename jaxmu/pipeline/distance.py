"""How far weights are from those of the original and of the retrained models.

Over the first eight members of a population, since reading every model of a
large job again would take long. Dead weights do not count.
"""

import jax
import numpy as np

from jaxmu.attacks import intervals
from jaxmu.core.types import Params
from jaxmu.metrics import distances
from jaxmu.ops import taps
from jaxmu.pipeline import job as job_lib
from jaxmu.pipeline import roster, train

METRICS = ('distance_original', 'distance_retrained')
_MOST = 8  # members; not a shard, whose size must change no number


def measure(
  job: job_lib.Job, cluster: np.ndarray
) -> dict[str, dict[str, intervals.Estimate]]:
  """Return both relative L2 distances of every population.

  Retrained models stand beside those of the next member, in a circle: the scale
  on which the others are read.

  Args:
    job: the job, its models trained.
    cluster: i64[P] what is independent, of all members.
  """
  retrained = job.populations['retrain']
  positions = np.arange(min(_MOST, retrained.members.size))
  members = train.select(retrained.members, positions)
  originals = job.populations['original']
  of = roster.originals_of(members, originals.members)
  original = _params(job, originals, of)
  reference = _params(job, retrained, positions)
  turned = jax.tree.map(lambda x: np.roll(x, -1, axis=0), reference)
  live = taps.live(job.task, _one(original, 0))
  found = {}
  for name, people in job.populations.items():
    own = original
    if name != 'original':
      own = _params(job, people, positions)
    others = original, turned if name == 'retrain' else reference
    found[name] = {
      metric: _mean(own, other, live, cluster[positions])
      for metric, other in zip(METRICS, others, strict=True)
    }
  return found


def _params(
  job: job_lib.Job, people: job_lib.Population, positions: np.ndarray
) -> Params:
  return train.read_models(job, people, positions)['params']


def _one(stacked: Params, member: int) -> Params:
  return jax.tree.map(lambda x: x[member], stacked)


def _mean(
  own: Params, other: Params, live: Params, cluster: np.ndarray
) -> intervals.Estimate:
  each = np.array(
    [
      distances.relative_l2(_one(own, k), _one(other, k), live)
      for k in range(len(cluster))
    ]
  )
  means = [np.mean(each[cluster == c]) for c in np.unique(cluster)]
  found = intervals.over_splits(np.array(means))
  # Not of all clusters, hence not to be paired with other numbers.
  return intervals.Estimate(found.value, found.low, found.high, found.n)
