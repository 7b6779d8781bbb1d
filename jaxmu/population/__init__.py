"""Populations of models: the only code that maps over several models.

layout       members on devices and in chunks
training     a method, epoch by epoch
prediction   log-odds of examples
"""

from jaxmu.population.layout import Layout, map_members, pad, put, replicate
from jaxmu.population.prediction import (
  Predictions,
  Predictor,
  predictions_from_logits,
)
from jaxmu.population.training import (
  Loaded,
  MemberInputs,
  Trained,
  Trainer,
  Watch,
  failure_epochs,
  initial_variables,
  prepare_hparams,
)

__all__ = [
  'Layout',
  'Loaded',
  'MemberInputs',
  'Predictions',
  'Predictor',
  'Trained',
  'Trainer',
  'Watch',
  'failure_epochs',
  'initial_variables',
  'map_members',
  'pad',
  'predictions_from_logits',
  'prepare_hparams',
  'put',
  'replicate',
]
