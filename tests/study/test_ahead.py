"""Programs are compiled before the first stage, or else by their stage."""

import pytest

from jaxmu.population import Predictor, Trainer
from jaxmu.report import progress
from jaxmu.study import ahead, run, stages
from jaxmu.study import job as job_lib
from tests.study import small_job

pytestmark = pytest.mark.xdist_group('job')


def _open(folder):
  return job_lib.open_job(small_job.make(folder))


def test_stages_find_their_programs(tmp_path, monkeypatch):
  job, bars = _open(tmp_path), progress.Progress()
  trainers, predictors = ahead.compile_programs(job, bars)
  assert set(trainers) == set(job.populations)

  def refuse(*_):
    raise AssertionError('a stage compiles')

  monkeypatch.setattr(Trainer, '_lower', refuse)
  monkeypatch.setattr(Predictor, 'lower', refuse)
  (predictor,) = predictors.values()
  monkeypatch.setattr(predictor, '_program', refuse)
  for name in job.populations:
    run.train(job, name, trainers[name], bars)
    stages.predict(job, name, bars, predictors)
  assert ahead.compile_programs(job, bars) == ({}, {})


def test_a_program_that_cannot_be_compiled_is_left_to_its_stage(
  tmp_path, monkeypatch, capsys
):
  def prepare(*_):
    def compile_programs():
      raise RuntimeError('RESOURCE_EXHAUSTED: no memory for the compiler')

    return compile_programs

  monkeypatch.setattr(Trainer, 'prepare', prepare)
  monkeypatch.setattr(Predictor, 'prepare', prepare)
  job, bars = _open(tmp_path), progress.Progress()
  run.train_and_predict(job, bars)
  for population in job.populations.values():
    assert not population.models.missing() and not population.scores.missing()
  assert 'compile: ' in capsys.readouterr().out
