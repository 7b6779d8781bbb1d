"""No value of a model, and no missing input, prevents a report."""

import dataclasses
import json
import shutil
import types

import numpy as np
import pytest

from jaxmu.api import audits, request
from jaxmu.attacks import scores
from jaxmu.metrics import METRICS, interface
from jaxmu.report import results
from jaxmu.study import evaluate, publish, run, stages
from jaxmu.study import job as job_lib
from jaxmu.testing.metrics import simulated
from tests.metrics.test_contract import PLUG_IN
from tests.study import small_job

pytestmark = pytest.mark.xdist_group('job')


def _value(folder):
  rows = results.read_csv(folder / 'results.csv')
  return {(row.method, row.metric): row.value for row in rows}


def _facts(folder):
  return json.loads((folder / 'results.json').read_text())


def test_intervals_of_shares_stay_within_0_and_1():
  values, cluster = np.array([1.0, 1.0, 0.9]), np.arange(3)
  free = evaluate.over_clusters(values, cluster)
  kept = evaluate.over_clusters(values, cluster, share=True)
  assert free.high > 1 and kept.high == 1 and kept.low == free.low
  beyond = evaluate.over_clusters(2 * values, cluster, share=True)
  assert beyond.high > 2  # a plug-in's number that is no share
  for share in (0.0, 1.0):
    for n in range(1, 60):
      _, low, high = request._share(np.full(n, share))
      assert (low if share == 0 else high) == share and 0 <= low < high <= 1


@pytest.mark.slow
def test_forgetting_a_class_with_one_seed_gives_a_report(tmp_path, capsys):
  job = run.run(
    small_job.make(
      tmp_path,
      splits__design='main',
      splits__num_splits=1,
      splits__forget_sets=1,
      splits__seeds=1,
      splits__forget='class:3',
    )
  )
  value = _value(tmp_path)
  # The retrained model never saw the class.
  assert value['retrain', 'fa'] == 0
  for name in ('fr', 'ret_dev', 'ret_dev_means'):
    assert np.isnan(value['msg', name])
  for name in ('rr', 'tr', 'tow', 'indisc_test', 'population_auc'):
    assert np.isfinite(value['msg', name]), name
  assert not [name for _, name in value if name.startswith('ulira')]
  warnings = _facts(tmp_path)['warnings']
  (why,) = [w for w in warnings if 'Forget retention' in w]
  assert 'the retrained model is 0' in why and 'MSG' in why
  assert any('at least 3' in w and 'design has 1.' in w for w in warnings)
  page = (tmp_path / 'report.html').read_text()
  assert 'Not available for Retrained, Original, MSG: an accuracy' in page
  assert 'Not available for' in capsys.readouterr().out
  assert publish.is_current(job)
  assert 'n/a' in (tmp_path / 'paper_table.md').read_text()


def test_all_models_diverge(finished, tmp_path):
  folder = tmp_path / 'job'
  shutil.copytree(finished, folder)
  run.run(small_job.make(folder, unlearn__hparams__learning_rate=1e30))
  facts = _facts(folder)
  assert facts['failed']['msg'] == [16, 16]
  text = '\n'.join(facts['warnings'])
  assert 'msg: all 16 models failed, at epoch' in text
  value = _value(folder)
  assert value['msg', 'ta'] == 0
  # Nothing looks like perfect and fast unlearning.
  for name in ('indisc_test', 'ulira_auc', 'ret_dev', 'loss_auc'):
    assert np.isnan(value['msg', name])
  assert ('msg', 'rte_counted') not in value
  clock = results.read_csv(folder / 'timing.csv')
  assert {row.method for row in clock} == {'original', 'retrain'}
  assert 'all models failed' in text
  assert np.isnan(value['msg', 'distance_original'])
  assert np.isfinite(value['retrain', 'ulira_auc'])
  path = str(folder / 'scores' / 'msg.npz')
  arrays = audits.read_scores(path)
  audit = audits.of_scores(arrays, 'x', ['loss'])
  assert audit.failed == {'unlearned': (16, 16)}
  data = scores.from_arrays(arrays)
  assert data.original is not None and not data.original.failed.any()


def test_models_without_a_finite_output_count_as_failed(finished, monkeypatch):
  job = job_lib.open_job(small_job.make(finished))
  stored = stages.read_predictions

  def read(population):
    found = stored(population)
    finite = np.array(found.finite)
    if population.name == 'msg':
      finite[3] = False
      finite[5, 1:] = False  # one output is left
    return found._replace(finite=finite)

  monkeypatch.setattr(stages, 'read_predictions', read)

  def failed(name):
    one = job.populations[name]
    return np.flatnonzero(evaluate.failed_models(one, read(one).finite))

  assert failed('msg').tolist() == [3]
  assert not failed('retrain').any()
  warnings = []
  population = evaluate.read_population(job, 'msg', warnings)
  assert np.flatnonzero(population.failed).tolist() == [3]
  assert '1 of 16 models have finite weights but no finite' in warnings[-1]


def test_a_job_runs_all_cheap_attacks(finished):
  value = _value(finished)
  run_on = {m for m, name in value if name == 'rmia_auc'}
  assert run_on == {'original', 'retrain', 'msg'}
  for name in ('ulira_auc', 'loss_auc', 'lira_offline_auc', 'population_mia'):
    excess = value['msg', f'excess_{name}']
    assert excess == pytest.approx(value['msg', name] - value['retrain', name])
  assert ('msg', 'lira_forget_auc') in value and ('msg', 'klom_mean') in value
  assert ('retrain', 'lira_forget_auc') not in value
  # Costly attacks only where they are named.
  assert not [name for _, name in value if name.startswith('kde')]


def test_attacks_are_chosen_by_name(finished, tmp_path):
  folder = tmp_path / 'job'
  shutil.copytree(finished, folder)
  run.run(small_job.make(folder, attack__which='kde,loss'))
  value = _value(folder)
  assert np.isfinite(value['msg', 'kde_auc'])
  assert ('msg', 'loss_auc') in value and ('msg', 'ulira_auc') not in value
  for wrong, why in (('magic', 'unknown attack'), ('entropy', 'needs logits')):
    with pytest.raises(ValueError, match=f'config.attack.which.*{why}'):
      small_job.make(folder, attack__which=wrong)


def test_a_job_computes_the_metric_of_a_file(finished, tmp_path):
  folder = tmp_path / 'job'
  shutil.copytree(finished, folder)
  path = tmp_path / 'confidence.py'
  path.write_text(PLUG_IN)
  settings = small_job.make(folder, metrics=(str(path),))
  job = run.run(settings)
  assert np.isfinite(_value(folder)['msg', 'forget_log_odds'])
  assert 'Median log-odds' in (folder / 'report.html').read_text()
  assert publish.is_current(job)
  path.write_text(PLUG_IN.replace('nanmedian', 'nanmean'))
  assert not publish.is_current(job)  # the code is part of the address
  path.write_text(PLUG_IN.replace('np.nanmedian', 'undefined'))
  run.run(settings)
  assert np.isnan(_value(folder)['msg', 'forget_log_odds'])
  assert any("'undefined' is not" in w for w in _facts(folder)['warnings'])
  with pytest.raises(ValueError, match='config.metrics: no file'):
    small_job.make(folder, metrics=('nothing.py',))


def test_without_retrained_models_what_needs_them_is_left_out(
  finished, tmp_path
):
  folder = tmp_path / 'job'
  shutil.copytree(finished, folder)
  job = job_lib.open_job(small_job.make(folder))
  kept = {n: p for n, p in job.populations.items() if n != 'retrain'}
  job = dataclasses.replace(job, populations=kept)
  publish.publish(job, 'x')
  value, whole = _value(folder), _value(finished)
  assert {method for method, _ in value} == {'original', 'msg'}
  for key in (('msg', 'fa'), ('msg', 'ulira_auc'), ('msg', 'population_auc')):
    assert value[key] == whole[key]
  assert not [name for _, name in value if name.startswith('excess_')]
  assert np.isnan(value['msg', 'ret_dev'])
  facts = _facts(folder)
  assert any('no retrained models' in w for w in facts['warnings'])
  with np.load(folder / 'scores' / 'msg.npz') as stored:
    assert {'log_odds', 'failed', 'original_failed'} <= set(stored.files)
    assert not [key for key in stored.files if key.startswith('retrained')]


def test_a_metric_that_fails_costs_only_itself():
  card = interface.Card('t', METRICS['accuracy'].card.terms)

  def fail(population):
    raise ZeroDivisionError

  collected = evaluate.Collected()
  population = simulated(name='ft')
  evaluate.measure(population, interface.Metric('x', fail, card), collected)
  reason = collected.missing['ft', 'ra']
  assert reason.startswith('ZeroDivisionError (test_unavailable.py, line ')
  absent = collected.estimates['ft']['ra'].by_split
  assert absent.shape == (6,) and np.isnan(absent).all()


def test_models_without_a_value_are_counted():
  values = np.array([1.0, np.nan, 3.0, 4.0, 5.0, 6.0])
  terms = {'fa': METRICS['accuracy'].card.terms['fa']}
  card = interface.Card('t', terms, undefined='the sky is blue')
  metric = interface.Metric('x', lambda p: {'fa': values}, card)
  collected = evaluate.Collected()
  cluster = np.array([0, 0, 1, 1, 2, 2])
  evaluate.measure(simulated(name='ft', cluster=cluster), metric, collected)
  assert collected.estimates['ft']['fa'].by_split.tolist() == [1, 3.5, 5.5]
  assert collected.partial == [
    'FT: Forget accuracy (FA) is not available for 1 of 6 models (the sky is '
    'blue); the mean is over the others'
  ]


def test_numbers_of_a_plug_in_must_have_names_of_their_own(tmp_path):
  path = tmp_path / 'mine.py'
  text = PLUG_IN.replace('forget_log_odds', 'fa')
  path.write_text(text)
  settings = types.SimpleNamespace(metrics=(str(path),))
  with pytest.raises(ValueError, match=r"\['fa'\], which other metrics give"):
    evaluate.chosen_metrics(settings)  # pyright: ignore
