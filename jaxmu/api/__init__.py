"""The functions of `import jaxmu`.

The modules, in the order of use:

  inputs       data sets and splits
  setup        data, design, model and seed that populations share; defaults
  sweeps       hyper-parameters per member
  training     train, retrain, unlearn, predict, load
  populations  the results: Models, also on disk, and Predictions
  evaluation   audit
  audits       its result, and audits of stored scores
  jobs         run: a whole job in a folder
  searches     search: hyper-parameters
  benchmark    sweep: the whole benchmark
  request      delete examples from one trained model
  printing     results as tables
"""

from jaxmu.api.audits import Audit as Audit
from jaxmu.api.benchmark import SweepResult as SweepResult
from jaxmu.api.benchmark import sweep as sweep
from jaxmu.api.evaluation import audit as audit
from jaxmu.api.inputs import Data as Data
from jaxmu.api.inputs import Design as Design
from jaxmu.api.inputs import load_data as load_data
from jaxmu.api.inputs import split as split
from jaxmu.api.jobs import JobResult as JobResult
from jaxmu.api.jobs import run as run
from jaxmu.api.populations import Models as Models
from jaxmu.api.populations import Predictions as Predictions
from jaxmu.api.searches import SearchResult as SearchResult
from jaxmu.api.searches import search as search
from jaxmu.api.training import load as load
from jaxmu.api.training import predict as predict
from jaxmu.api.training import retrain as retrain
from jaxmu.api.training import train as train
from jaxmu.api.training import unlearn as unlearn
