"""Forget sets by class, file and difficulty; refused forget sets."""

import functools
import types

import numpy as np
import pytest

from jaxmu.data import splits
from jaxmu.metrics import Evaluated
from jaxmu.study import evaluate
from tests.data import refusals

TRAIN = np.array([7, 3, 5, 1, 9, 0], np.int32)
VAL = np.array([2, 4], np.int32)
LABEL = np.array([0, 1, 0, 1, 0, 2, 0, 2, 0, 1], np.int32)


def test_with_forget_keeps_the_order_of_the_training_set():
  design = splits.with_forget(TRAIN, forget=np.array([1, 7]), val=VAL)
  assert design.retain.tolist() == [[3, 5, 9, 0]]
  assert design.forget.tolist() == [[1, 7]]
  assert design.audit.tolist() == [1, 7]


def test_impossible_forget_sets_are_refused():
  assert not refusals.unclear(
    lambda forget: splits.with_forget(TRAIN, forget=np.array(forget), val=VAL),
    [
      ([], 'empty'),
      ([1, 3, 1], 'repeats 1 '),
      ([1, 2], 'holds 1 .* first 2'),
      ([1, 99], 'first 99'),
      ([-1], 'first -1'),
      (TRAIN, 'nothing is left'),
      ([0.5], 'float64'),
    ],
  )


def test_by_class_takes_the_training_examples_of_the_class():
  got = splits.by_class(TRAIN, label=LABEL, classes=[2])
  assert got.tolist() == [7, 5]
  with pytest.raises(ValueError, match=r'none of \[4\].*\[0, 1, 2\]'):
    splits.by_class(TRAIN, label=LABEL, classes=[4])


def test_index_files_of_both_kinds(tmp_path):
  text = tmp_path / 'forget.txt'
  text.write_text('# chosen by hand\n3\n\n9  # the odd one\n')
  binary = tmp_path / 'forget.npy'
  np.save(binary, np.array([3, 9], np.int32))
  for path in (text, binary):
    assert splits.read_indices(path, num_dev=10).tolist() == [3, 9]


def test_index_files_of_other_programs(tmp_path, monkeypatch):
  monkeypatch.setenv('HOME', str(tmp_path))
  np.savetxt(tmp_path / 'saved.txt', np.array([3, 9]))
  (tmp_path / 'marked.txt').write_bytes(b'\xef\xbb\xbf3\r\n9\r\n')
  for name in ('saved.txt', 'marked.txt'):
    assert splits.read_indices(f'~/{name}', num_dev=10).tolist() == [3, 9], name
  read = []
  for text in (
    '1_0',
    '３',
    '0x3',
    '3.5',
    '3.5e+00',
    '1e400',
    '9' * 5000,
    'nan',
  ):
    (tmp_path / 'odd.txt').write_text(text)
    try:
      read.append((text, splits.read_indices('~/odd.txt', num_dev=100)))
    except ValueError as error:
      assert 'odd.txt' in str(error) and len(str(error)) < 300
  assert not read


def test_bad_index_files_are_named(tmp_path):
  for path in (tmp_path / 'absent.txt', tmp_path):
    with pytest.raises(ValueError, match='does not exist|is no regular file'):
      splits.read_indices(path, num_dev=10)
  text = tmp_path / 'words.txt'
  text.write_text('3\nfour\n')
  with pytest.raises(ValueError, match='words.txt.*four'):
    splits.read_indices(text, num_dev=10)
  binary = tmp_path / 'floats.npy'
  np.save(binary, np.array([0.5]))
  with pytest.raises(ValueError, match='float64'):
    splits.read_indices(binary, num_dev=10)
  with binary.open('wb') as file:
    np.savez(file, index=np.array([3]))
  with pytest.raises(ValueError, match='floats.npy is an archive'):
    splits.read_indices(binary, num_dev=10)
  np.save(binary, np.array([0.5]))
  binary.write_bytes(binary.read_bytes()[:20])
  with pytest.raises(ValueError, match='floats.npy'):
    splits.read_indices(binary, num_dev=10)
  for index in (10, -1):
    text.write_text(f'3\n{index}\n')
    with pytest.raises(ValueError, match=rf'words.txt.*0\.\.9, first {index}'):
      splits.read_indices(text, num_dev=10)


def test_every_line_of_an_index_file(tmp_path):
  path = tmp_path / 'ids.txt'
  read = functools.partial(splits.read_indices, num_dev=100)
  path.write_bytes('\ufeff# a request\n7  # one\n\n3\n'.encode())
  assert read(path).tolist() == [7, 3]
  np.savetxt(path, [5, 1])
  assert read(path).tolist() == [5, 1]
  np.save(tmp_path / 'ids.npy', np.array([9, 2]))
  assert read(tmp_path / 'ids.npy').tolist() == [9, 2]
  wrong = []
  for text, words in {
    '': ('empty',),
    '# nothing\n': ('empty',),
    '3\n1_0\n': ('line 2', "'1_0'", 'one integer per line'),
    '3 4\n': ('line 1', "'3 4'"),
    '1.5\n': ("'1.5'",),
    '3\n100\n': ('100', '0..99'),
    '-1\n': ('-1', '0..99'),
    '9' * 17: ('outside 0..99',),
    '3\n3\n': ('repeats 3',),
    'inf\n': ("'inf'",),
  }.items():
    path.write_text(text)
    with pytest.raises(ValueError) as caught:
      read(path)
    message = str(caught.value)
    wrong += [(text, message) for word in words if word not in message]
  assert not wrong
  with pytest.raises(ValueError, match='does not exist'):
    read(tmp_path / 'no')
  with pytest.raises(ValueError, match='is no regular file'):
    read(tmp_path)
  path.write_bytes(b'\xff\xfe3\x00')
  with pytest.raises(ValueError, match='cannot be read'):
    read(path)
  np.save(tmp_path / 'ids.npy', np.array([0.5]))
  with pytest.raises(ValueError, match='integers'):
    read(tmp_path / 'ids.npy')


def test_refused_forget_sets_name_the_file(tmp_path):
  path = tmp_path / 'twice.txt'
  path.write_text('3\n3\n')
  with pytest.raises(ValueError, match='twice.txt.*repeats 3 .1 repeated'):
    splits.main_split(np.zeros(40, int), 30, how=f'file:{path}')


def test_by_difficulty_takes_an_end_of_the_ranking():
  memorised = np.array([0.0, 5, 0, 1, 0, 3, 0, 3, 0, -2])
  most = splits.by_difficulty(TRAIN, memorised=memorised, count=2, end='most')
  assert most.tolist() == [5, 1]  # 5 and 7 tie for the second place
  least = splits.by_difficulty(TRAIN, memorised=memorised, count=2, end='least')
  assert least.tolist() == [9, 0]


def test_by_difficulty_ranks_only_what_has_a_score():
  memorised = np.array([0.0, 5, 0, np.nan, 0, 3, 0, np.inf, 0, -2])
  for end, expected in (('most', [5, 1]), ('least', [9, 0])):
    with pytest.warns(UserWarning, match='2 of 6 .* no score.*2 .*other 4'):
      got = splits.by_difficulty(TRAIN, memorised=memorised, count=2, end=end)
    assert got.tolist() == expected
  with pytest.raises(ValueError, match="4 of 6 .*choose 4.*design='audit'"):
    splits.by_difficulty(TRAIN, memorised=memorised, count=4, end='most')


def test_by_difficulty_needs_a_count():
  for count in (0, 6):
    with pytest.raises(ValueError, match=f'count is {count}'):
      splits.by_difficulty(
        TRAIN, memorised=np.zeros(10), count=count, end='most'
      )


def test_memorisation_equals_the_loop():
  design = splits.audit_design(
    40, num_splits=4, forget_fraction=0.25, forget_sets=2, pool=32
  )
  state = splits.membership(design, 50)
  log_odds = np.random.default_rng(0).normal(size=state.shape)
  got = splits.memorisation(log_odds, state)
  for n in range(50):
    seen = [
      log_odds[p, n]
      for p in range(len(state))
      if state[p, n] in (splits.RETAINED, splits.FORGOTTEN)
    ]
    unseen = [
      log_odds[p, n]
      for p in range(len(state))
      if state[p, n] == splits.NEVER_SEEN
    ]
    if seen and unseen:
      np.testing.assert_allclose(got[n], np.mean(seen) - np.mean(unseen))
    else:
      assert np.isnan(got[n])


def _scores(num_examples=40):
  """A scores file's arrays, where example n is memorised by n exactly."""
  state = np.full((2, num_examples), splits.NEVER_SEEN)
  state[0] = splits.RETAINED
  log_odds = np.zeros((2, num_examples))
  log_odds[0] = np.arange(num_examples)
  return log_odds, state


@pytest.mark.parametrize('how', ['random', 'class:1', 'file', 'most', 'least'])
def test_main_split_keeps_training_and_validation(tmp_path, how):
  label = np.arange(40) % 4
  plain_split = splits.main_split(label, 30)
  train = np.concatenate([plain_split.retain[0], plain_split.forget[0]])
  chosen = np.sort(train)[4:8]
  log_odds, state = _scores()
  np.savez(tmp_path / 's.npz', log_odds=log_odds, state=state)
  np.save(tmp_path / 'i.npy', chosen)
  expected = {
    'random': np.sort(plain_split.forget[0]),
    'class:1': np.sort(train[label[train] == 1]),
    'file': chosen,
    'most': np.sort(train)[-3:],
    'least': np.sort(train)[:3],
  }[how]
  if how == 'file':
    how = f'file:{tmp_path / "i.npy"}'
  elif how in ('most', 'least'):
    how = f'{how}:{tmp_path / "s.npz"}'
  design = splits.main_split(label, 30, how=how)
  np.testing.assert_array_equal(design.audit, expected)
  np.testing.assert_array_equal(design.val, plain_split.val)
  together = np.concatenate([design.retain[0], design.forget[0]])
  np.testing.assert_array_equal(np.sort(together), np.sort(train))


def test_lists_of_classes_may_have_spaces():
  label = np.arange(40) % 4
  expected = splits.main_split(label, 30, how='class:1,3')
  for how in ('class:1, 3', 'class: 3 ,1', 'class:1,3,'):
    design = splits.main_split(label, 30, how=how)
    np.testing.assert_array_equal(design.forget, expected.forget)


def test_unknown_choices_are_refused():
  unknown = ['', 'class', 'class:', 'class:,', 'class:3 5', 'class:3,,5']
  unknown += ['class:a', 'file', 'random:1', 'hard:x', 'most']
  assert not refusals.unclear(
    lambda how: splits.main_split(np.zeros(40, int), 30, how=how),
    [(how, 'choose random, class:3,5') for how in unknown],
  )


def test_scores_must_belong_to_the_data_set(tmp_path):
  path = tmp_path / 's.npz'
  log_odds, state = _scores(20)
  np.savez(path, log_odds=log_odds, state=state)
  with pytest.raises(ValueError, match='each of the 40 examples'):
    splits.read_scores(path, num_examples=40)
  np.savez(path, log_odds=log_odds, state=state[:1])
  with pytest.raises(ValueError, match='one row per model'):
    splits.read_scores(path, num_examples=20)
  np.savez(path, log_odds=log_odds)
  with pytest.raises(ValueError, match="expected .'log_odds', 'state'"):
    splits.read_scores(path, num_examples=20)
  for absent in (tmp_path / 'absent.npz', tmp_path):
    with pytest.raises(ValueError, match='does not exist|is no regular file'):
      splits.read_scores(absent, num_examples=20)
  np.savez(path, log_odds=np.stack([log_odds] * 3, -1), state=state)
  score = splits.read_scores(path, num_examples=20)
  assert score.tolist() == list(range(20))
  np.save(tmp_path / 's.npy', score)
  direct = splits.read_scores(tmp_path / 's.npy', num_examples=20)
  np.testing.assert_array_equal(direct, score)


def test_scores_must_be_numbers(tmp_path):
  log_odds, state = _scores(20)
  words = np.full(log_odds.shape, 'a')
  for path in (tmp_path / 's.npy', tmp_path / 's.npz'):
    np.save(tmp_path / 's.npy', words[0])
    np.savez(tmp_path / 's.npz', log_odds=words, state=state)
    with pytest.raises(ValueError, match=f'{path.name}.*dtype <U1'):
      splits.read_scores(path, num_examples=20)
  np.savez(tmp_path / 's.npz', log_odds=log_odds, state=words)
  with pytest.raises(ValueError, match='state have dtype'):
    splits.read_scores(tmp_path / 's.npz', num_examples=20)
  np.savez(tmp_path / 's.npz', log_odds=log_odds[0], state=state[0])
  with pytest.raises(ValueError, match='one row per model'):
    splits.read_scores(tmp_path / 's.npz', num_examples=20)
  np.save(tmp_path / 'one.npy', log_odds)
  (tmp_path / 'one.npy').rename(tmp_path / 'one.npz')
  with pytest.raises(ValueError, match='one array.*np.savez'):
    splits.read_scores(tmp_path / 'one.npz', num_examples=20)


def test_scores_of_a_job_are_those_of_its_originals(tmp_path, monkeypatch):
  design = splits.audit_design(
    40, num_splits=4, forget_fraction=0.25, forget_sets=2, pool=32
  )
  state = splits.membership(design, 50)
  generator = np.random.default_rng(0)
  phi = {
    name: generator.normal(size=state.shape)
    for name in ('original', 'retrain', 'msg')
  }

  def stored(job, name, warnings):
    del job, warnings
    return Evaluated(
      name=name,
      log_odds=phi[name],
      correct=phi[name] > 0,
      state=state,
      validation=design.val,
      test=np.arange(40, 50),
      cluster=design.split,
      split=design.split,
      classes=2,
      failed=np.zeros(len(state), bool),
    )

  monkeypatch.setattr(evaluate, 'read_population', stored)
  path = tmp_path / 'scores' / 'msg.npz'
  job = types.SimpleNamespace(populations=phi)
  evaluate.write_scores(job, 'msg', path)  # pyright: ignore[reportArgumentType]
  np.testing.assert_allclose(
    splits.read_scores(path, num_examples=50),
    splits.memorisation(phi['original'], state),
    atol=1e-6,
  )
  with np.load(path) as archive:
    arrays = dict(archive)
  del arrays['original_log_odds']
  np.savez(path, **arrays)
  with pytest.raises(ValueError, match='but no original_log_odds: add'):
    splits.read_scores(path, num_examples=50)
