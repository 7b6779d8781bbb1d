"""The ranking of a job's methods: rows, pictures and the file behind them."""

import types

import numpy as np
import pytest
from scipy import stats

from jaxmu.report import glossary, html, ranks, results
from jaxmu.report.plots import style
from jaxmu.study import evaluate, publish

METHODS = ('ft', 'msg', 'ct')


def make_job(methods=METHODS):
  return types.SimpleNamespace(
    unlearned=[types.SimpleNamespace(name=name) for name in methods],
    source=types.SimpleNamespace(num_classes=10),
  )


def make_evaluation(seeds=10, guessing='', strong=False):
  rng = np.random.default_rng(0)
  per_cluster, rows = {}, []
  for i, name in enumerate(('original', 'retrain', *METHODS)):
    per_cluster[name] = {
      'ret_dev': 0.1 * i + 0.01 * rng.random(seeds),
      'indisc_test': 0.95 + 1e-3 * rng.random(seeds),
      'ta': np.full(seeds, 0.15 if name == guessing else 0.9),
    }
    rows += [
      results.Row(name, metric, values.mean())
      for metric, values in per_cluster[name].items()
    ]
    if strong and name != 'retrain':
      rows.append(results.Row(name, 'excess_ulira_auc', 0.1 * i))
  return evaluate.Evaluation(rows, {}, {}, {}, [], {}, per_cluster)


def test_rows_are_mean_ranks_and_groups():
  found = make_evaluation(guessing='ct')
  rankings = publish.rank_methods(make_job(), found)
  rows = ranks.job_rows(METHODS, rankings)
  assert glossary.missing(row.metric for row in rows) == []
  value = {(r.method, r.metric): r.value for r in rows}
  # FT is always better than MSG, and CT does not do better than twice chance.
  assert [value[m, 'rank_ret_dev'] for m in METHODS] == [1, 2, 3]
  assert [value[m, 'group_ret_dev'] for m in METHODS] == [1, 2, 3]
  own = [found.per_cluster[m]['indisc_test'] for m in ('ft', 'msg')]
  naive = stats.rankdata([-x for x in own], axis=0).mean(axis=1)
  assert [value[m, 'rank_disc_test'] for m in METHODS] == [*naive, 3]
  # Differences within the noise of the attack put both into one group.
  assert [value[m, 'group_disc_test'] for m in METHODS] == [1, 1, 3]


def test_few_seeds_are_compared_by_bootstrap_and_fewer_not_at_all():
  job = make_job()
  five = publish.rank_methods(job, make_evaluation(seeds=5))['ret_dev']
  assert five.groups == ((0,), (1,), (2,))  # Wilcoxon's test never could
  assert publish.rank_methods(job, make_evaluation(seeds=4)) == {}
  assert publish.rank_methods(make_job(('ft',)), make_evaluation()) == {}


@pytest.mark.parametrize('strong', [False, True])
def test_pictures(strong):
  job, found = make_job(), make_evaluation(strong=strong)
  problems: list[str] = []
  drawn = publish.ranking_pictures(
    job, publish.rank_methods(job, found), found.rows, problems
  )
  assert not problems
  assert [picture.name for picture in drawn] == [
    'front',
    'rank_ret_dev',
    'rank_disc_test',
  ]
  assert all(isinstance(p, html.Picture) and p.png for p in drawn)
  label = drawn[0].figure.axes[0].get_ylabel()
  assert ('excess over retrained' in label) == strong
  # FT is better than both others in accuracies, and in AUC where that is known.
  lines = drawn[0].figure.axes[0].get_lines()
  filled = [
    line
    for line in lines
    if line.get_marker() == 'o' and line.get_markerfacecolor() == style.BLUE
  ]
  rivals = [found.per_cluster[m] for m in METHODS]
  privacy = [
    0.1 * (i + 2) if strong else 1 - own['indisc_test'].mean()
    for i, own in enumerate(rivals)
  ]
  naive = sum(
    min(privacy[:i], default=np.inf) > p for i, p in enumerate(privacy)
  )
  assert len(filled) == naive
  assert not publish.ranking_pictures(
    make_job(('ft',)), {}, found.rows, problems
  )


def test_without_the_numbers_to_rank_by_there_is_no_ranking():
  found = make_evaluation()
  for own in found.per_cluster.values():
    own['ret_dev'] = np.full(10, np.nan)
  assert set(publish.rank_methods(make_job(), found)) == {'disc_test'}
  for own in found.per_cluster.values():
    del own['ret_dev']
  assert publish.rank_methods(make_job(), found) == {}
  problems: list[str] = []
  assert not publish.ranking_pictures(make_job(), {}, [], problems)
  assert not problems


def test_observations_are_read_again(tmp_path):
  found = make_evaluation(seeds=3)
  path = tmp_path / results.PER_CLUSTER_FILE
  results.write_csv(path, publish.observations(found), results.Observation)
  again = results.read_csv(path, results.Observation)
  for row in again:
    assert row.value == found.per_cluster[row.method][row.metric][row.cluster]
  assert len(again) == 5 * 3 * 3
