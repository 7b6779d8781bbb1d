"""Classifiers on all signals: held out, and better than any single one."""

import numpy as np
import pytest
from sklearn import linear_model, model_selection, pipeline, preprocessing

from jaxmu.attacks import roc, single_model


def test_finds_what_no_signal_shows_alone_and_nothing_in_noise():
  rng = np.random.default_rng(0)
  member = np.arange(400) < 170
  noise = rng.normal(size=(400, 2))
  features = noise.copy()
  features[:, 1] = features[:, 0] + 0.3 * noise[:, 1] + 0.5 * member
  score = single_model.combined(features, member)
  together = roc.auc(score[member], score[~member])
  alone = roc.auc(features[member, 1], features[~member, 1])
  assert together > max(alone, 0.5) + 0.1
  null = single_model.combined(noise, member)
  assert abs(roc.auc(null[member], null[~member]) - 0.5) < 0.09


def test_logistic_equals_scikit_learn():
  rng = np.random.default_rng(2)
  x, member = rng.standard_gamma(0.5, (300, 4)), np.arange(300) < 90
  x[:90] *= 1.5
  got = single_model.combined(x, member)
  twin = pipeline.make_pipeline(
    preprocessing.StandardScaler(),
    linear_model.LogisticRegression(
      class_weight='balanced', tol=1e-12, max_iter=10000
    ),
  )
  folds = model_selection.StratifiedKFold(5, shuffle=True, random_state=0)
  expected = model_selection.cross_val_predict(
    twin, x, member, cv=folds, method='decision_function'
  )
  for _, test in folds.split(x, member):
    fold = expected[test]
    expected[test] = (fold - fold.mean()) / fold.std()
  np.testing.assert_allclose(got, expected, atol=1e-4)


def test_without_a_leak_the_auc_is_one_half():
  """Log-odds of five fits in one ROC have an AUC of .487 ± .004 here."""
  values = []
  for seed in range(300):
    rng = np.random.default_rng(seed)
    features, member = rng.normal(size=(192, 4)), rng.permutation(192) < 64
    score = single_model.combined(features, member)
    state = np.where(member, 1, 2)[None].astype(np.int8)
    parts = single_model.by_fold(score[None], state, np.zeros(1, int))
    values.append(roc.roc_report(*parts, fprs=())['auc'].value)
  error = np.std(values, ddof=1) / np.sqrt(len(values))
  assert abs(np.mean(values) - 0.5) < 2 * error and error < 0.0045


def test_each_fold_is_a_row_with_its_scores_alone():
  rng = np.random.default_rng(3)
  state = rng.integers(0, 4, (3, 90)).astype(np.int8)
  score = np.full(state.shape, np.nan)
  aucs = np.zeros((3, 5))
  folds = model_selection.StratifiedKFold(5, shuffle=True, random_state=0)
  for m, row in enumerate(state):
    used = np.flatnonzero((row == 1) | (row == 2))
    member = row[used] == 1
    features = rng.normal(size=(len(used), 2)) + member[:, None]
    score[m, used] = single_model.combined(features, member)
    for k, (_, test) in enumerate(folds.split(features, member)):
      s, kind = score[m, used[test]], member[test]
      aucs[m, k] = np.mean(s[kind][:, None] > s[~kind])
  parts = single_model.by_fold(score, state, np.array([4, 4, 7]))
  assert [x.shape[0] for x in parts] == [15, 15, 15]
  assert np.isfinite(parts[0]).sum() == np.isfinite(score).sum()
  auc = roc.roc_report(*parts, fprs=())['auc']
  np.testing.assert_allclose(auc.by_split, [aucs[:2].mean(), aucs[2].mean()])


def test_constant_signals_are_all_tied():
  member = np.arange(64) < 21
  for value in (0.0, -3.7):
    score = single_model.combined(np.full((64, 4), value), member)
    np.testing.assert_array_equal(score, 0)
    assert roc.auc(score[member], score[~member]) == 0.5
  rounding = -3.7 * (1 + np.spacing(1) * np.arange(256).reshape(64, 4) % 3)
  np.testing.assert_array_equal(single_model.combined(rounding, member), 0)


def test_repeats_exactly_and_refuses_too_little():
  rng = np.random.default_rng(1)
  features, member = rng.normal(size=(40, 3)), np.arange(40) % 2 == 0
  np.testing.assert_array_equal(
    single_model.combined(features, member),
    single_model.combined(features, member),
  )
  with pytest.raises(ValueError, match='members: 4'):
    single_model.combined(features, np.arange(40) < 4)
