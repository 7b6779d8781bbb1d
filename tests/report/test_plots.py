"""Plots show all their input, of any size, and are reproducible bit for bit."""

import io
import warnings

import matplotlib
import numpy as np
import pytest
from PIL import Image

from jaxmu.attacks import per_example
from jaxmu.report import plots
from jaxmu.report.plots import style

TWENTY = ('original', 'retrain', *(f'method_{i}' for i in range(18)))
FEW = ('original', 'retrain', 'ft')
FPR = np.geomspace(1e-3, 1, 20)


@pytest.fixture(autouse=True)
def no_warnings():
  with warnings.catch_warnings():
    warnings.simplefilter('error')
    yield


def _curve(power, **fields):
  tpr = FPR**power
  return plots.Roc(FPR, tpr, tpr * 0.9, np.minimum(tpr * 1.1, 1), **fields)


def _lines(panel):
  return {line.get_label(): line for line in panel.get_lines()}


def _texts(fig):
  return ' '.join(text.get_text() for text in fig.findobj(matplotlib.text.Text))


def _draw(fig):
  """Render completely, so that errors in layout and drawing are raised."""
  return Image.open(io.BytesIO(plots.png(fig)))


def test_roc_draws_each_curve_with_its_band_and_the_reference_dashed():
  fig = plots.roc({m: _curve(0.5, remark='AUC 0.7') for m in FEW})
  (panel,) = fig.axes
  lines = _lines(panel)
  reference = lines['Retrained (reference), AUC 0.7']
  assert reference.get_color() == style.INK and reference.is_dashed()
  np.testing.assert_array_equal(lines['FT, AUC 0.7'].get_ydata(), FPR**0.5)
  assert not lines['FT, AUC 0.7'].is_dashed()
  assert len(panel.collections) == 3  # bands
  assert (panel.get_xscale(), panel.get_yscale()) == ('log', 'log')
  _draw(fig)


def test_roc_of_many_methods_has_a_panel_each_with_the_same_context():
  fig = plots.roc({m: _curve(0.5) for m in TWENTY})
  used = [panel for panel in fig.axes if panel.get_lines()]
  assert [panel.get_title(loc='left') for panel in used] == list(TWENTY[2:])
  for panel in used:
    assert {'Original', 'Retrained (reference)'} <= _lines(panel).keys()
  _draw(fig)


def test_roc_survives_zeros_and_gaps_and_shades_the_unsupported():
  nothing = np.full(20, np.nan)
  curves = {
    'retrain': plots.Roc(
      FPR, np.where(FPR < 0.1, 0, FPR), supported=FPR > 0.01
    ),
    'ga': plots.Roc(FPR, nothing, nothing, nothing),
  }
  fig = plots.roc(curves)
  assert 'GA: no finite scores' in _texts(fig)
  assert 'Too few unseen examples' in _texts(fig)
  _draw(fig)


@pytest.mark.parametrize('methods', [('ft',), FEW, TWENTY])
def test_log_odds_has_a_panel_per_method_and_shares_that_sum_to_one(methods):
  rng = np.random.default_rng(0)
  panels = {
    m: (rng.normal(size=(4, 50)), rng.normal(size=300)) for m in methods
  }
  fig = plots.log_odds(panels)
  used = [panel for panel in fig.axes if panel.patches]
  assert len(used) == len(methods)
  for panel in used:
    for patch in panel.patches:
      assert sum(patch.get_data().values) == pytest.approx(1)
  _draw(fig)


def test_log_odds_cuts_no_bar_off():
  wide, narrow = np.linspace(-5, 5, 100), np.full(100, 0.1)
  fig = plots.log_odds({'retrain': (wide, wide), 'ft': (narrow, narrow)})
  for panel in fig.axes:
    tallest = max(patch.get_data().values.max() for patch in panel.patches)
    assert panel.get_ylim()[0] == 0
    assert panel.get_ylim()[1] > tallest


def test_log_odds_of_a_broken_model_do_not_hide_the_others():
  usual = np.linspace(-5, 5, 100)
  panels = {name: (usual, usual + 1) for name in ('retrain', 'ft', 'ct')}
  panels['ff'] = (np.full(100, -3e38), np.full(100, 3e38))
  fig = plots.log_odds(panels)
  for panel in fig.axes:
    low, high = panel.get_xlim()
    assert -50 < low < -4.9 and 5.9 < high < 50
    for patch in panel.patches:
      assert sum(patch.get_data().values) == pytest.approx(1)


def test_log_odds_counts_what_is_not_finite():
  bad = np.array([np.nan, np.inf, 1.0, 2.0])
  fig = plots.log_odds({'ga': (bad, np.ones(3)), 'ft': ([], [])})
  assert '2 values not finite' in _texts(fig)
  assert 'no values' in _texts(fig)
  _draw(fig)


@pytest.mark.parametrize('methods', [('ft',), FEW, TWENTY])
def test_accuracies_show_values_and_gaps(methods):
  values = np.full((len(methods), 4), 0.9)
  if 'retrain' in methods:
    values[methods.index('retrain')] = 0.875
  fig = plots.accuracies(methods, values, values - 0.1, values + 0.1)
  for panel in fig.axes:
    points = {
      x
      for line in panel.get_lines()
      if line.get_marker() in ('o', 'D')
      for x in line.get_xdata()
    }
    assert points == {0.9, values.min()}
  texts = _texts(fig)
  assert ('+0.025' in texts) == ('retrain' in methods)
  _draw(fig)


def test_accuracies_that_differ_by_little_look_different():
  values = np.array([[0.990] * 4, [0.996] * 4])
  fig = plots.accuracies(['retrain', 'ft'], values)
  for panel in fig.axes:
    low, high = panel.get_xlim()
    assert 0.006 / (high - low) > 0.4
    assert low < 0.990 and high > 0.996
    assert all(low <= tick <= high for tick in panel.get_xticks())
    assert len(panel.get_xticks()) > 1
  _draw(fig)


def test_accuracies_show_missing_numbers_and_refuse_wrong_shapes():
  fig = plots.accuracies(['ga', 'retrain'], [[np.nan] * 4, [0.5] * 4])
  assert 'n/a' in _texts(fig)
  _draw(fig)
  with pytest.raises(ValueError, match='expected 1 methods × 4 sets'):
    plots.accuracies(['ga'], [[0.5]])


def _exposure(auc, discovered=False):
  auc = np.asarray(auc, float)
  found = np.broadcast_to(discovered, auc.shape)
  return per_example.PerExample(auc, np.full(auc.shape, np.nan), found)


@pytest.mark.parametrize('count', [0, 50, 6000])
def test_vulnerability_counts_the_corners_by_the_rule_of_the_table(count):
  rng = np.random.default_rng(0)
  (x, y), null = rng.uniform(size=(2, count)), rng.uniform(size=99)
  before, after = rng.random((2, count)) < 0.4
  unlearned, retrained = _exposure(y, after), _exposure(null, null > 0.9)
  fig = plots.vulnerability(
    _exposure(x, before), unlearned, method='ft', retrained=retrained
  )
  texts = _texts(fig)
  if count:
    before, after = before & (x > 0.5), after & (y > 0.5)
    assert f'{np.mean(before & after):.1%} still exposed' in texts
    assert f'{np.mean(~before & after):.1%} newly exposed' in texts
    assert f'{np.mean(before & ~after):.1%} no longer exposed' in texts
    share = per_example.summarise(unlearned).exposed
    assert share == after.mean()
    null = f'(retrained: {np.mean(null > 0.9):.1%})'
    assert f'exposed: {share:.1%} {null}' in texts
    drawn = fig.axes[0].collections[-1].get_offsets()
    assert len(drawn) == after.sum()
  else:
    assert 'no example was scored' in texts
  assert 'retrained (reference)' in texts
  _draw(fig)


def test_vulnerability_exposes_nothing_that_chance_explains():
  """Large AUCs of few models are no discoveries, nor is an AUC below 0.5."""
  auc = np.array([0.9, 0.95, 0.05, 0.8])
  found = np.array([False, False, True, False])
  fig = plots.vulnerability(_exposure(auc), _exposure(auc, found), method='ft')
  texts = _texts(fig)
  assert '0.0% still exposed' in texts and '0.0% newly exposed' in texts
  assert 'exposed: 0.0%' in texts and 'retrained' not in texts
  _draw(fig)


def test_vulnerability_says_how_many_points_lack_a_score():
  fig = plots.vulnerability(
    _exposure([0.5, np.nan, 0.7]), _exposure([0.5, 0.5, np.inf]), method='a'
  )
  assert '2 examples not scored' in _texts(fig)
  with pytest.raises(ValueError, match='original has 1 example '):
    plots.vulnerability(_exposure([0.5]), _exposure([0.5, 0.5]), method='a')


@pytest.mark.parametrize('methods', [('ft',), TWENTY])
def test_trade_off_draws_each_method(methods):
  fig = plots.trade_off({m: (FPR, 1 - FPR**0.5) for m in methods})
  lines = _lines(fig.axes[0])
  assert len(lines) == len(methods) + 1  # and guessing
  looks = {(line.get_color(), line.get_linestyle()) for line in lines.values()}
  assert len(looks) >= min(len(methods), 4)
  _draw(fig)


def test_trade_off_remarks_stand_in_the_legend():
  curves = {m: (FPR, 1 - FPR**0.5) for m in ('ft', 'ct')}
  fig = plots.trade_off(curves, remarks={'ft': 'μ = 0.30'})
  assert {'FT, μ = 0.30', 'CT'} <= _lines(fig.axes[0]).keys()
  _draw(fig)


def test_no_two_of_twenty_methods_look_alike():
  looks = style.looks(TWENTY).values()
  assert len({(look.color, str(look.line)) for look in looks}) == 20


def test_critical_difference_joins_what_cannot_be_told_apart():
  fig = plots.critical_difference(
    ['a', 'b', 'c', 'd', 'retrain'], [1.0, 1.5, 3.0, np.nan, 5.0], 0.6
  )
  (panel,) = fig.axes
  bars = [line for line in panel.get_lines() if line.get_color() == style.BLUE]
  assert len(bars) == 1
  low, high = bars[0].get_xdata()
  assert low < 1.0 and 1.5 < high < 3.0
  texts = _texts(fig)
  assert '1 method without a rank' in texts
  assert 'Retrained (reference)' in texts
  _draw(fig)


def test_critical_difference_with_chained_groups():
  fig = plots.critical_difference(['a', 'b', 'c'], [1, 1.8, 2.6], 1.0)
  bars = [
    line for line in fig.axes[0].get_lines() if line.get_color() == style.BLUE
  ]
  assert len(bars) == 2  # a-b and b-c overlap, a-c differ


def test_critical_difference_draws_no_bar_inside_another():
  fig = plots.critical_difference(['a', 'b', 'c'], [1, 1.5, 1.8], 1.0)
  bars = [
    line for line in fig.axes[0].get_lines() if line.get_color() == style.BLUE
  ]
  assert len(bars) == 1


@pytest.mark.parametrize('count', [1, 18])
def test_critical_difference_of_one_and_many(count):
  ranks = np.linspace(1, max(count, 1), count)
  _draw(plots.critical_difference([f'm{i}' for i in range(count)], ranks, 3))


@pytest.mark.parametrize('gap', [0.08, 0.085, 0.09])
def test_no_name_covers_a_marker(gap):
  """A wide name between two points goes to its free side."""
  x, y = [0.0, 0.5, 0.5 + gap, 1.0], [0.0, 0.5, 0.5, 1.0]
  fig = plots.pareto(
    ['ct', 'neggrad_plus', 'ft', 'ga'], x, y, np.zeros(4, bool)
  )
  _draw(fig)
  (panel,) = fig.axes
  points = panel.transData.transform(np.column_stack([x, y]))
  half = 6.5 / 2 * fig.dpi / 72
  for note in panel.texts:
    box = matplotlib.text.Text.get_window_extent(note)  # without its line
    for point in points:
      nearest = np.clip(point, box.min, box.max)
      assert np.abs(nearest - point).max() >= half, note.get_text()


def test_pareto_fills_the_front():
  methods = ['original', 'retrain', 'a', 'b', 'c', 'd']
  x = [0.1, 0.0, 0.1, 0.2, 0.3, np.nan]
  y = [0.2, 0.0, 0.3, 0.1, 0.2, 0.1]
  front = [True, True, True, True, False, True]
  fig = plots.pareto(methods, x, y, front)
  (panel,) = fig.axes
  filled = {
    float(line.get_xdata()[0])
    for line in panel.get_lines()
    if line.get_marker() == 'o' and line.get_markerfacecolor() == style.BLUE
  }
  assert filled == {0.1, 0.2}
  assert 'not shown: d' in _texts(fig)
  _draw(fig)


@pytest.mark.parametrize('methods', [('ft',), TWENTY])
def test_training_curves_draw_the_median_and_survive_failures(methods):
  values = np.array(
    [[3.0, 2.0, 1.0], [3.0, np.nan, np.nan], [5.0, 4.0, np.inf]]
  )
  curves = {m: values for m in methods}
  curves['dead'] = np.full((2, 3), np.nan)
  fig = plots.training_curves({'Loss': curves})
  lines = _lines(fig.axes[0])
  name = 'FT' if 'ft' in methods else 'method_3'
  np.testing.assert_array_equal(lines[name].get_ydata(), [3, 3, 1])
  assert 'dead: no finite values' in lines
  _draw(fig)


def test_bytes_do_not_depend_on_time_or_the_users_settings():
  def make():
    fig = plots.roc({m: _curve(0.5) for m in FEW})
    return plots.png(fig)

  first = make()
  with matplotlib.rc_context({'font.size': 30, 'axes.labelweight': 'bold'}):
    second = make()
    assert matplotlib.rcParams['font.size'] == 30  # and it is given back
  assert first == second
  assert b'Software' not in first and b'matplotlib' not in first


def test_names_with_dollars_are_not_mathematics():
  fig = plots.accuracies(['$x_$', 'a$'], np.full((2, 4), 0.5))
  _draw(fig)


def test_pictures_are_png():
  fig = plots.accuracies(['a'], np.full((1, 4), 0.5))
  with Image.open(io.BytesIO(plots.png(fig))) as image:
    assert image.format == 'PNG'
