"""SGD and Adam with torch's semantics, as optax chains.

Weight decay is coupled and falls on every tensor; the learning rate of the
current step multiplies the whole momentum buffer. Every argument may be traced,
so an optimiser is rebuilt inside the program from the hyper-parameters.
"""

from typing import Any

import jax
import jax.numpy as jnp
import optax

from jaxmu.core.types import Array, Params


def sgd(
  learning_rate: Array | float,
  momentum: Array | float | None,
  weight_decay: Array | float,
  *,
  grad_scale: Params | None = None,
  trainable: Params | None = None,
) -> optax.GradientTransformation:
  """Build SGD with coupled weight decay and heavy-ball momentum.

  Args:
    learning_rate: step size.
    momentum: factor of the buffer u <- m u + g; no dampening, no Nesterov.
      None keeps no buffer.
    weight_decay: factor of the parameters that is added to the gradient.
    grad_scale: multiplies the gradient before decay and momentum, so that
      masked weights still decay (the masks of SalUN and MSG).
    trainable: 1 for tensors that train, 0 for frozen ones, which neither decay
      nor move (CF-k, EU-k, RNI); constant while the optimiser state lives.
  """
  # Every chain has the same five links, so that the state of one fits another.
  return optax.chain(
    scale_by_tree(grad_scale),
    optax.add_decayed_weights(weight_decay),
    scale_by_tree(trainable),
    optax.identity() if momentum is None else optax.trace(momentum),
    optax.scale(-learning_rate),
  )


def adam(
  learning_rate: Array | float, weight_decay: Array | float
) -> optax.GradientTransformation:
  """Build Adam whose weight decay is part of the gradient, as in torch.

  Decay rates 0.9 and 0.999, epsilon 1e-8 outside the root, bias-corrected.
  """
  return optax.chain(
    optax.add_decayed_weights(weight_decay),
    optax.scale_by_adam(b1=0.9, b2=0.999, eps=1e-8),
    optax.scale(-learning_rate),
  )


def scale_by_tree(factors: Params | None) -> optax.GradientTransformation:
  """Multiply updates by factors of the same tree; zero wins over NaN."""
  if factors is None:
    return optax.identity()

  def scale(updates: Any, params: Any = None) -> Any:
    del params
    return jax.tree.map(
      lambda u, f: jnp.where(f == 0, jnp.zeros_like(u), u * f), updates, factors
    )

  return optax.stateless(scale)
