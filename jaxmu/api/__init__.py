"""The functions of `import jaxmu`.

The modules, in the order of use:

  inputs       data sets and splits
  setup        data, design, model and seed that populations share
  defaults     settings that suit a data set
  sweeps       hyper-parameters per member
  training     train, retrain, unlearn, predict, load
  populations  the results: Models and Predictions
  folders      populations on disk
  evaluation   audit
  jobs         run: a whole job in a folder
  request      delete examples from one trained model
  printing     results as tables
"""

from jaxmu.api.evaluation import Audit, audit
from jaxmu.api.inputs import Data, Design, load_data, split
from jaxmu.api.jobs import JobResult, run
from jaxmu.api.populations import Models, Predictions
from jaxmu.api.training import load, predict, retrain, train, unlearn

__all__ = [
  'Audit',
  'Data',
  'Design',
  'JobResult',
  'Models',
  'Predictions',
  'audit',
  'load',
  'load_data',
  'predict',
  'retrain',
  'run',
  'split',
  'train',
  'unlearn',
]
