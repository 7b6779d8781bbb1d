"""NegGrad, a method of the reference that is not in the benchmark.

Its recorded run is replayed like the others, on the package's parts: the sum of
both sets' cross-entropies, those of the forget set negated, each clipped to [0,
1 / C]. The clip removes the gradient of the forget set, and that of the retain
set unless the loss is small, so the method is not in the package.
"""

import jax.numpy as jnp

from jaxmu.data import batches
from jaxmu.draws import Draws
from jaxmu.method import Card, Info, Method
from jaxmu.methods import ft
from jaxmu.methods.parts import forward, losses, training
from jaxmu.types import Array, Problem


def epoch(
  hparams: ft.Hparams,
  draws: Draws,
  problem: Problem,
  state: training.Fit,
  epoch: Array,
) -> tuple[training.Fit, Info]:
  """Take one shuffled pass over both sets."""
  task, split = problem.task, problem.split

  def clipped(variables, batch, draws):
    index, forget = batch
    logits, variables = forward.clean_train_logits(
      task, variables, index, draws
    )
    each = losses.cross_entropies(logits, task.dataset.label[index])
    signed = jnp.where(forget, -each, each)
    return jnp.clip(signed, 0, 1 / logits.shape[1]).mean(), variables

  index = jnp.concatenate([split.retain, split.forget])
  forget = jnp.arange(index.size) >= split.retain.size
  order = draws.permutation('train', index.size)
  rate = training.cosine(hparams.learning_rate, epoch, hparams.num_epochs)
  return training.run_epoch(
    clipped,
    training.sgd_from(hparams, rate),
    state,
    batches.make_batches((index[order], forget[order]), hparams.batch_size),
    draws,
  )


METHOD = Method(
  name='neggrad',
  Hparams=ft.Hparams,
  init=training.init,
  epoch=epoch,
  card=Card(
    title='NegGrad',
    citation='the reference, not in its paper',
    cost=lambda h, n: 3 * h['num_epochs'] * (n.retain + n.forget),
    reads=('retain', 'forget'),
  ),
)
