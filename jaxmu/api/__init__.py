"""The functions of `import jaxmu`.

The modules, in the order of use:

  inputs       data sets and splits
  setup        data, design, model and seed that populations share; defaults
  members      hyper-parameters of each member
  training     train, retrain, unlearn, predict, load
  populations  the results: Models, also on disk, and Predictions
  evaluation   audit
  audits       its result, and audits of stored scores
  jobs         run, search, sweep: whole jobs and searches in folders
  request      delete examples from one trained model
  printing     results as tables
"""

from jaxmu.api.audits import Audit as Audit
from jaxmu.api.evaluation import audit as audit
from jaxmu.api.inputs import Data as Data
from jaxmu.api.inputs import Design as Design
from jaxmu.api.inputs import load_data as load_data
from jaxmu.api.inputs import split as split
from jaxmu.api.jobs import JobResult as JobResult
from jaxmu.api.jobs import SearchResult as SearchResult
from jaxmu.api.jobs import SweepResult as SweepResult
from jaxmu.api.jobs import run as run
from jaxmu.api.jobs import search as search
from jaxmu.api.jobs import sweep as sweep
from jaxmu.api.populations import Models as Models
from jaxmu.api.populations import Predictions as Predictions
from jaxmu.api.training import load as load
from jaxmu.api.training import predict as predict
from jaxmu.api.training import retrain as retrain
from jaxmu.api.training import train as train
from jaxmu.api.training import unlearn as unlearn
