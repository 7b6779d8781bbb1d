"""The whole suite on one population, and the checks of its input."""

import math

import numpy as np
import pytest
from scipy import special

from jaxmu.attacks import (
  likelihood,
  log_odds,
  registry,
  roc,
  scores,
  single_model,
)
from tests.attacks import populations


def make_arrays(shift=1.0, seed=0, paired=True):
  """Logits of unlearned and retrained models with a known leak."""
  rng = np.random.default_rng(seed)
  state, split = populations.states(rng, 16, 2, 88)
  if not paired:  # each split draws its half again
    state = np.concatenate(
      [populations.states(rng, 2, 2, 88)[0][:2] for _ in range(16)]
    )
  state[:, 80:] = 3
  labels = rng.integers(0, 3, 88)

  def logits(phi):
    z = rng.normal(0, 0.1, (*phi.shape, 3))
    z[:, np.arange(88), labels] = phi
    return z.astype(np.float32)

  clean = populations.scores(rng, state, split)
  leaky = populations.scores(rng, state, split, shift=shift)
  return {
    'logits': logits(leaky),
    'retrained_logits': logits(clean),
    'labels': labels,
    'state': state,
    'split': split,
  }


@pytest.fixture(name='findings', scope='module')
def _findings():
  data = scores.from_arrays(make_arrays())
  return populations.by_name(registry.run(data, fprs=(0.1,)))


def test_every_attack_reports(findings):
  data = scores.from_arrays(make_arrays())
  assert {attack for attack, _ in findings} == set(
    registry.possible_attacks(data)
  )
  assert len(registry.possible_attacks(data)) >= 17
  for (attack, metric), estimate in findings.items():
    assert np.isfinite(estimate.value), (attack, metric, estimate.note)


def test_leaks_show_beside_their_null(findings):
  for attack in ('ulira', 'lira_online', 'rmia', 'kde', 'histogram', 'loss'):
    leak = findings[attack, 'auc']
    null = findings[attack, 'retrained_auc']
    excess = findings[attack, 'excess_auc']
    assert leak.low > 0.5, attack
    assert abs(null.value - 0.5) < 0.06, attack
    assert excess.low > 0, attack
    assert excess.value == pytest.approx(leak.value - null.value)
  assert findings['lira_forget', 'auc'].low > 0.5
  assert findings['population', 'mia'].n == 8
  assert findings['competition', 'relative_score'].value < 1
  assert (
    findings['klom', 'mean'].value > findings['klom', 'retrained_mean'].value
  )
  assert (
    findings['per_example', 'mean'].value
    > findings['per_example', 'retrained_mean'].value
  )


def test_competition_weighs_forgetting_by_accuracies(findings):
  arrays = make_arrays()
  ratios = []
  for states in ((0,), (2, 3)):
    right = []
    for key in ('logits', 'retrained_logits'):
      correct = arrays[key].argmax(axis=-1) == arrays['labels']
      right.append(correct[np.isin(arrays['state'], states)].mean())
    ratios.append(right[0] / right[1])
  forgotten = findings['competition', 'forget_score'].value
  assert findings['competition', 'final_score'].value == pytest.approx(
    forgotten * ratios[0] * ratios[1]
  )
  plain = {k: v for k, v in arrays.items() if 'logits' not in k}
  del plain['labels']
  phi = np.random.default_rng(0).normal(size=(2, *arrays['state'].shape))
  data = scores.from_arrays(
    {**plain, 'log_odds': phi[0], 'retrained_log_odds': phi[1]}
  )
  found = registry.run(data, attacks=['competition'])
  assert 'final_score' not in {f.statistic for f in found}


def test_ulira_numbers_are_those_of_the_plain_functions(findings):
  data = scores.from_arrays(make_arrays())
  ratio, _ = likelihood.ulira(
    data.unlearned.log_odds, data.state, data.split // 2
  )
  report = roc.roc_report(ratio, data.state, data.split // 2, fprs=(0.1,))
  for metric, estimate in report.items():
    assert findings['ulira', metric].value == estimate.value
    assert findings['ulira', metric].n == 8
  np.testing.assert_array_equal(
    registry.score('ulira', data)['unlearned'], ratio
  )


def test_population_attack_is_per_model(findings):
  data = scores.from_arrays(make_arrays())
  loss = np.logaddexp(0, -data.unlearned.log_odds)
  by_model = [
    single_model.population_mia(x[c == 1], x[c == 2])
    for x, c in zip(loss, data.state, strict=True)
  ]
  expected = np.mean(by_model)
  assert findings['population', 'mia'].value == pytest.approx(expected)


def test_log_odds_alone_allow_fewer_attacks():
  arrays = make_arrays()
  phi = np.random.default_rng(1).normal(size=arrays['state'].shape)
  keep = {key: arrays[key] for key in ('state', 'split')}
  data = scores.from_arrays({**keep, 'log_odds': phi})
  names = registry.possible_attacks(data)
  assert 'ulira' in names and 'rmia' in names
  assert not {'entropy', 'ulira_reference', 'competition'} & set(names)
  assert any('retrained' in w for w in data.warnings)
  findings = registry.run(data, attacks=['ulira', 'loss'], fprs=(0.1,))
  assert {f.attack for f in findings} == {'ulira', 'loss'}
  assert not [f for f in findings if f.excess is not None]
  with pytest.raises(ValueError, match='needs scores of retrained'):
    registry.run(data, attacks=['klom'])
  with pytest.raises(ValueError, match='unknown attack'):
    registry.run(data, attacks=['magic'])


def test_variants_of_klom_run_by_name_and_say_what_they_are():
  data = scores.from_arrays(make_arrays())
  names = ['klom', 'klom_audit', 'klom_bench']
  assert set(registry.possible_attacks(data)) & set(names) == {'klom'}
  found = populations.by_name(registry.run(data, names))
  values = {found[name, 'mean'].value for name in names}
  assert len(values) == 3 and np.isfinite([*values]).all()
  terms = [registry.ATTACKS[name].term('mean') for name in names]
  assert len({term.title for term in terms if term}) == 3
  assert len({term.sentence for term in terms if term}) == 3
  for name in names:
    null = found[name, 'retrained_mean'].value
    assert 0 < null < found[name, 'mean'].value, name


def test_augmentations_run_through_every_attack():
  arrays = make_arrays()
  phi = np.random.default_rng(2).normal(size=(*arrays['state'].shape, 2))
  keep = {key: arrays[key] for key in ('state', 'split')}
  data = scores.from_arrays(
    {**keep, 'log_odds': phi, 'retrained_log_odds': phi[::-1]}
  )
  found = registry.run(data, fprs=(0.1,))
  assert {f.attack for f in found} == set(registry.possible_attacks(data))


def test_complementary_splits_are_left_out_in_pairs():
  data = scores.from_arrays(make_arrays())
  np.testing.assert_array_equal(data.group, data.split // 2 * 2)
  assert any('pairs' in w for w in data.warnings)
  data = scores.from_arrays(make_arrays(paired=False))
  np.testing.assert_array_equal(data.group, data.split)
  state, split = populations.states(np.random.default_rng(3), 6, 2, 20)
  assert log_odds.complementary_pairs(state[:10], split[:10]) is None


def test_never_forgotten_examples_are_no_negatives():
  arrays = make_arrays(shift=0.0)
  z, state = arrays['logits'], arrays['state']
  plain = scores.from_arrays(arrays)
  # Easy examples that no model forgets: nothing leaks, yet scores differ.
  z = np.concatenate([z, z + 50 * (z == z.max(-1, keepdims=True))], axis=1)
  idle = np.where(state == 1, 0, state)
  more = {
    'logits': z,
    'labels': np.tile(arrays['labels'], 2),
    'state': np.concatenate([state, idle], axis=1),
    'split': arrays['split'],
  }
  mixed = scores.from_arrays(more)
  for attack in ('loss', 'lira_offline', 'combined', 'population'):
    one, two = (
      {
        f.statistic: f.estimate.value
        for f in registry.run(data, attacks=[attack], fprs=())
        if f.population == 'unlearned'
      }
      for data in (plain, mixed)
    )
    if attack == 'lira_offline':  # its prior variance is over all examples
      assert one['auc'] == pytest.approx(two['auc'], abs=0.05)
    else:
      assert one == two, attack


def test_models_before_unlearning_are_reported_beside():
  arrays = make_arrays()
  arrays['original_logits'] = make_arrays(shift=2.0)['logits']
  data = scores.from_arrays(arrays)
  found = {
    f.population: f
    for f in registry.run(data, attacks=['ulira'], fprs=())
    if f.statistic == 'auc'
  }
  original, retrained, unlearned = (
    found[name].estimate.value for name in data.populations
  )
  assert original > unlearned > retrained
  assert found['original'].excess.value == original - retrained
  assert list(registry.score('ulira', data)) == list(data.populations)


def test_non_finite_scores_are_counted_and_kept():
  arrays = make_arrays()
  arrays['logits'][0, :7] = np.nan
  data = scores.from_arrays(arrays)
  assert data.unlearned.non_finite == 7
  assert any('7 non-finite scores of unlearned' in w for w in data.warnings)
  assert np.isfinite(data.unlearned.log_odds).all()
  found = registry.run(data, attacks=['ulira'], fprs=())
  counts = populations.by_name(found)
  assert counts['ulira', 'non_finite'].value == 7
  assert counts['ulira', 'unscored'].value == 0
  assert counts['ulira', 'retrained_non_finite'].value == 0


def changed(**changes):
  arrays = {**make_arrays(), **changes}
  return {key: value for key, value in arrays.items() if value is not None}


def test_wrong_input_says_what_was_expected():
  arrays = make_arrays()
  state, split, z = arrays['state'], arrays['split'], arrays['logits']
  cases = [
    (changed(state=None), "'state' is missing"),
    (changed(logits=None), 'neither'),
    (changed(loggits=z), 'unknown keys'),
    (changed(log_odds=z[..., 0]), 'keep one'),
    (changed(labels=None), "need 'labels'"),
    (changed(logits=z.astype(int)), 'floating-point'),
    (changed(logits=z[..., 0]), 'classes'),
    (changed(labels=arrays['labels'] + 7), r'0\.\.2'),
    (changed(state=state[:, :-1]), r'\[models, examples\]'),
    (changed(state=state.astype(float)), 'integers'),
    (changed(state=state + 3), 'allowed are 0'),
    (changed(state=np.where(state == 1, 0, state)), 'nothing to attack'),
    (changed(split=split[:-1]), 'one integer'),
    (changed(split=np.arange(len(split)) % 3), '3 splits; at least 4'),
    (changed(split=split[::-1] // 4), 'another split number'),
    (changed(retrained_logits=arrays['retrained_logits'][1:]), 'row p'),
    (changed(original_logits=z[:, :-1]), 'examples of logits|one integer'),
    (changed(retrained_logits=None, original_log_odds=z[..., 0]), 'both be'),
  ]
  for arrays, message in cases:
    with pytest.raises(ValueError, match=message):
      scores.from_arrays(arrays)


def test_probabilities_are_converted_where_named_and_refused_elsewhere():
  arrays = make_arrays()
  z = arrays['logits'].astype(np.float64)
  log_p = special.log_softmax(z, axis=-1)
  logits = scores.from_arrays(arrays).unlearned
  others = {
    'log-probabilities': changed(logits=log_p),
    'probabilities': changed(logits=None, probabilities=np.exp(log_p)),
  }
  for name, other in others.items():
    one = scores.from_arrays(other).unlearned
    for key, value in {'log_odds': logits.log_odds, **logits.signals}.items():
      got = one.log_odds if key == 'log_odds' else one.signals[key]
      np.testing.assert_allclose(got, value, 1e-5, 1e-9, err_msg=name)
  # The smallest numbers of a type stand for 0.
  hard = np.eye(3, dtype=np.float32)[np.argmax(z, axis=-1)]
  one = scores.from_arrays(changed(logits=None, probabilities=hard)).unlearned
  assert np.isfinite(one.log_odds).all() and one.log_odds.max() > 80
  missing = hard.copy()
  missing[0, 0] = np.nan
  for key, half in (('logits', np.float16), ('retrained_logits', np.float32)):
    for values in (np.exp(log_p), missing):
      with pytest.raises(ValueError, match=f'{key} are prob.*before the soft'):
        scores.from_arrays(changed(**{key: values.astype(half)}))
  for values, message in (
    (z, "probabilities must be at least 0 .*name logits 'logits'"),
    (np.exp(log_p), 'both logits and probabilities are given'),
    (hard.astype(int), 'floating-point'),
  ):
    kept = arrays['logits'] if 'both' in message else None
    with pytest.raises(ValueError, match=message):
      scores.from_arrays(changed(logits=kept, probabilities=values))


def test_few_splits_and_lonely_examples_are_warned_about():
  rng = np.random.default_rng(4)
  state, split = populations.states(rng, 6, 2, 40)
  state[4:, 0] = np.where(state[4:, 0] == 1, 0, state[4:, 0])
  phi = rng.normal(size=state.shape)
  data = scores.from_arrays({'log_odds': phi, 'state': state, 'split': split})
  assert any('with at least 16 splits' in w for w in data.warnings)
  assert any('fewer than 3' in w for w in data.warnings)


def test_too_little_for_a_number_is_a_note_not_an_error():
  rng = np.random.default_rng(5)
  state, split = populations.states(rng, 6, 2, 16)  # 4 forgotten per model
  phi = rng.normal(size=state.shape)
  data = scores.from_arrays(
    {
      'log_odds': phi,
      'retrained_log_odds': phi[::-1],
      'state': np.where(state == 0, 3, state),
      'split': split,
    }
  )
  found = populations.by_name(registry.run(data, fprs=(0.01,)))
  for key, reason in {
    ('ulira', 'tpr_0.01'): 'needs',
    ('ulira', 'retain_auc'): 'no retained',
    ('population', 'mia'): 'fewer than 10',
    ('competition', 'forget_score'): 'forgotten by 8',
    ('klom', 'mean'): 'forgotten by 8',
  }.items():
    assert math.isnan(found[key].value) and reason in found[key].note, key
