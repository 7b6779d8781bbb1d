"""Published scores: what is kept, and what rounding them changes."""

import io
import pathlib

import numpy as np
import pytest

from jaxmu import terms
from jaxmu.attacks import registry
from jaxmu.attacks import scores as scores_lib
from jaxmu.published import rows, scores, writing
from jaxmu.report import results
from jaxmu.study import evaluate
from jaxmu.study import job as job_lib
from tests.attacks import populations

pytestmark = pytest.mark.xdist_group('published')


@pytest.mark.parametrize('shape', [(1, 1), (3, 5), (4, 8)])
def test_states_survive_packing(shape):
  state = np.random.default_rng(0).integers(0, 4, shape).astype(np.int8)
  packed = scores.packed_state(state)
  assert packed.dtype == np.uint8 and packed.size == -(-state.size // 4)
  flat = state.reshape(-1).tolist()
  for k, byte in enumerate(packed.tolist()):  # the naive twin
    four = [byte // 4**n % 4 for n in range(4)]
    assert four[: len(flat) - 4 * k] == flat[4 * k : 4 * k + 4]
  back = scores.unpacked_state(packed, shape)
  assert back.dtype == np.int8
  np.testing.assert_array_equal(back, state)


def test_only_what_no_attack_on_forgotten_examples_reads_is_left_out():
  state = np.array(
    [
      [terms.RETAINED, terms.RETAINED, terms.NEVER_SEEN, terms.EXCLUDED],
      [terms.RETAINED, terms.FORGOTTEN, terms.RETAINED, terms.EXCLUDED],
    ]
  )
  kept = [[False, True, True, False], [False, True, False, False]]
  np.testing.assert_array_equal(scores.is_kept(state), kept)


def test_published_scores_are_those_of_the_job(table):
  found = scores.read(table.one)
  job = job_lib.open_job(table.settings)
  assert scores.names(table.one) == ['retrain', 'original', 'ft', 'msg']
  kept = scores.is_kept(found.state)
  for name in ('original', 'retrain', 'msg'):
    exact = evaluate.read_population(job, name, [])
    np.testing.assert_array_equal(found.state, exact.state[:, found.examples])
    np.testing.assert_array_equal(found.split, exact.split)
    np.testing.assert_array_equal(found.cluster, exact.cluster)
    want = exact.log_odds[:, found.examples].astype(np.float16)
    np.testing.assert_array_equal(found.log_odds[name][kept], want[kept])
    assert np.isnan(found.log_odds[name][~kept]).all()
    np.testing.assert_array_equal(found.failed[name], exact.failed)
  outside = np.setdiff1d(np.arange(len(job.source.label)), found.examples)
  assert (exact.state[:, outside] == terms.EXCLUDED).all()
  np.testing.assert_array_equal(found.labels, job.source.label[found.examples])


def test_attacks_on_published_scores_give_the_numbers_of_the_report(table):
  """All numbers of attacks, within the rounding that the record states."""
  exact = {(r.method, r.metric): r for r in table.one.numbers}
  attacked = scores.attack(table.one, ['original', 'retrain', 'ft', 'msg'])
  metrics = {row.metric for row in attacked}
  assert {'ulira_auc', 'excess_ulira_auc', 'ulira_tpr_0.1'} <= metrics
  rounding = table.one.record['scores']['rounding']
  assert set(rounding) <= metrics
  assert rounding['ulira_auc'] <= rows.OF_SCORES
  for row in attacked:
    if row.metric in rounding:
      value = exact[row.method, row.metric].value
      if np.isfinite(value):
        assert abs(row.value - value) <= rounding[row.metric]
  of_msg = scores.attack(table.one, ['msg'], ['ulira_auc'])
  both = [
    [r for r in found if r.method == 'msg'] for found in (attacked, of_msg)
  ]
  want, got = ({r.metric: r for r in found}['ulira_auc'] for found in both)
  assert (got.value, got.low, got.high) == (want.value, want.low, want.high)


def test_arrays_are_what_the_command_for_stored_scores_takes(table):
  data = scores_lib.from_arrays(scores.arrays(table.one, 'msg'))
  pairs = scores.read(table.one).cluster
  # The same groups, found from the states.
  for k in np.unique(pairs):
    assert len(np.unique(data.group[pairs == k])) == 1
  assert len(np.unique(data.group)) == len(np.unique(pairs))
  assert data.retrained is not None and data.original is not None
  (auc,) = (
    one.estimate.value
    for one in registry.run(data, ['ulira'], fprs=())
    if (one.population, one.statistic) == ('unlearned', 'auc')
  )
  report = {(r.method, r.metric): r.value for r in table.one.numbers}
  # It fits the never-seen entries of fewer examples than the report.
  assert auc == pytest.approx(report['msg', 'ulira_auc'], abs=0.02)


@pytest.mark.parametrize('shift', [0.0, 0.4])
@pytest.mark.parametrize('scale', [1.0, 8.0])
def test_float16_changes_the_auc_by_less_than_a_thousandth(shift, scale):
  """At log-odds of either size, with and without a leak."""
  rng = np.random.default_rng(0)
  state, split = populations.states(rng, 16, 2, 400)
  log_odds = scale * populations.scores(rng, state, split, shift=shift)
  exact = {'log_odds': log_odds, 'state': state, 'split': split}
  half = log_odds.astype(np.float16).astype(np.float64)
  first, second = (
    registry.run(scores_lib.from_arrays(one), ['ulira'], fprs=())[0]
    for one in (exact, {**exact, 'log_odds': half})
  )
  assert first.metric == 'ulira_auc'
  assert 0 < abs(first.estimate.value - second.estimate.value) < 1e-3


def test_scores_that_do_not_fit_are_left_out_with_their_hash(tmp_path):
  content = {'design': bytes(10), 'original': bytes(20), 'ft': bytes(9)}
  scores.write(tmp_path, content)
  left = scores.write(tmp_path, content, most=25)
  assert sorted(p.name for p in (tmp_path / 'scores').iterdir()) == [
    'design.npz',
    'ft.npz',
  ]
  ((file, size, sha256),) = ((o['file'], o['bytes'], o['sha256']) for o in left)
  assert (file, size) == ('scores/original.npz', 20)
  assert sha256 == (
    'de47c9b27eb8d300dbb5f2c353e632c393262cf06340c4fa7f1b40c4cbd36f90'
  )


def test_scores_that_are_not_published_are_named(table):
  with pytest.raises(ValueError, match='the scores of ga are not published'):
    scores.read(table.one, ['ga'])


@pytest.mark.parametrize('extra', [[], [65504.0], [-65505.0], [65520.0]])
@pytest.mark.parametrize('wide', [False, True])
def test_scores_are_in_float32_where_float16_does_not_reach(extra, wide):
  lowest = float(np.finfo(np.float32).min)
  exact = np.array([1.00001, -3.0, lowest, *extra])
  found = scores.rounded(exact, wide)
  beyond = any(abs(x) > 65504 for x in extra)
  assert found.dtype == (np.float32 if wide or beyond else np.float16)
  assert np.isneginf(found).tolist() == [x == lowest for x in exact]
  assert not np.isposinf(found).any()
  finite = exact != lowest
  np.testing.assert_allclose(found[finite], exact[finite], rtol=2**-11)


def test_what_was_not_finite_stays_so(table):
  """The placeholder of a score becomes infinite, and counts as not finite."""
  lowest = np.finfo(np.float32).min
  found = scores.read(table.one, ['msg'])
  row, column = np.argwhere(scores.is_kept(found.state))[0]
  found.log_odds['msg'][row, column] = -np.inf
  evaluated = scores._evaluated(table.one, found, 'msg')
  assert evaluated.log_odds[row, column] == lowest


def test_rounding_is_the_difference_of_each_number():
  exact = [
    results.Row('a', 'x', 0.5),
    results.Row('b', 'x', 0.6),
    results.Row('a', 'y', float('nan')),
    results.Row('b', 'y', float('nan')),
  ]
  rounded = [
    results.Row('a', 'x', 0.5001),
    results.Row('b', 'x', 0.598),
    results.Row('a', 'y', 0.5),
    results.Row('b', 'y', float('nan')),
    results.Row('a', 'z', 0.5),
  ]
  changed = scores.rounding(exact, rounded)
  assert changed == {
    ('a', 'x'): pytest.approx(0.0001),
    ('b', 'x'): pytest.approx(0.002),
    ('a', 'y'): np.inf,  # a number that rounding creates or loses
  }


def test_files_depend_on_their_content_alone():
  first, second = (scores._npz(x=np.arange(5)) for _ in range(2))
  assert first == second
  assert np.load(io.BytesIO(first))['x'].tolist() == [0, 1, 2, 3, 4]


def test_scores_whose_rounding_changes_the_auc_are_in_float32(
  table, tmp_path, monkeypatch
):
  job, _ = writing.finished_job(table.settings)
  folder = tmp_path / 'one'
  results.write_csv(folder / 'results.csv', table.one.numbers)

  def write(most=scores.MOST_BYTES):
    return writing._write_scores(job, folder, table.one.record, most)

  def dtypes():
    return {
      path.stem: str(np.load(path)['log_odds'].dtype)
      for path in (folder / 'scores').glob('*.npz')
      if path.stem != scores.DESIGN
    }

  _, known = write()
  assert set(dtypes().values()) == {'float16'}
  changed = known['rounding']['ulira_auc']
  monkeypatch.setattr(rows, 'OF_SCORES', changed * (1 - 1e-9))
  _, known = write()
  found = dtypes()
  assert set(found.values()) == {'float16', 'float32'}
  assert known['rounding']['ulira_auc'] < changed
  # A population in float32 that no longer fits is left out.
  small = sum(p.stat().st_size for p in (folder / 'scores').iterdir()) - 1
  left_out, _ = write(small)
  (name,) = (pathlib.Path(one['file']).stem for one in left_out)
  assert name in found and name not in dtypes()
  monkeypatch.setattr(rows, 'OF_SCORES', -1.0)
  with pytest.raises(
    ValueError, match='is more than -1 from that of the report'
  ):
    write()
