"""The page is self-contained, escapes its contents and shows all of them."""

import base64
import html.parser
import json
import math
import re

import numpy as np
import pytest

from jaxmu.report import glossary, plots
from jaxmu.report import html as html_lib
from jaxmu.report import results as results_lib
from tests.report import results

EVIL = '<script>alert("1")</script>'
_VOID = {'meta', 'img', 'br', 'line', 'circle', 'link', 'input', 'hr'}


class Reader(html.parser.HTMLParser):
  """Collects tags and text, and checks that tags nest."""

  def __init__(self):
    super().__init__()
    self.tags, self.text, self.open = [], [], []

  def handle_starttag(self, tag, attrs):
    self.tags.append((tag, dict(attrs)))
    if tag not in _VOID:
      self.open.append(tag)

  def handle_startendtag(self, tag, attrs):
    self.tags.append((tag, dict(attrs)))

  def handle_endtag(self, tag):
    assert self.open.pop() == tag

  def handle_data(self, data):
    self.text.append(data)


def _read(report):
  reader = Reader()
  reader.feed(html_lib.render(report))
  assert not reader.open
  return reader, ' '.join(''.join(reader.text).split())


def _figure():
  return plots.accuracies(['a'], np.full((1, 4), 0.5))


def _report(**fields):
  content = {
    'title': 'Does it leak?',
    'lead': ['Sixteen models were trained.'],
    'rows': results.rows(),
    'pictures': [html_lib.Picture('bars', 'Bars of accuracies.', _figure())],
    'provenance': {'data': 'digits', 'versions': {'numpy': '2.4'}},
    'command': 'python -m jaxmu.main --config=configs/msg_resnet.py',
    'warnings': ['TPR at 0.1% FPR was refused.'],
    'failed': {'ga': (2, 16)},
  }
  return html_lib.Report(**{**content, **fields})


def test_nothing_is_fetched_and_nothing_runs():
  reader, _ = _read(_report())
  names = {tag for tag, _ in reader.tags}
  assert not names & {'script', 'link', 'iframe', 'object', 'embed', 'base'}
  for _, attributes in reader.tags:
    assert not any(name.startswith('on') for name in attributes)
    for name in ('src', 'href', 'srcset', 'action'):
      value = attributes.get(name)
      assert value is None or value.startswith(('data:image/png', '#'))
  style = html_lib.render(_report()).split('<style>')[1].split('</style>')[0]
  assert 'url(' not in style and '@import' not in style
  policy = [a['content'] for t, a in reader.tags if 'http-equiv' in a]
  assert policy and "default-src 'none'" in policy[0]


def test_links_lead_to_sections():
  reader, _ = _read(_report())
  targets = {a['id'] for _, a in reader.tags if 'id' in a}
  links = {a['href'][1:] for t, a in reader.tags if t == 'a'}
  assert links == targets


def test_everything_is_shown():
  report = _report()
  reader, text = _read(report)
  for part in (
    *report.lead,
    *report.findings,
    *report.warnings,
    report.command,
    'Bars of accuracies.',
    'versions',
    '2.4',
    '2 of 16 failed',
  ):
    assert ' '.join(part.split()) in text
  for metric in {row.metric for row in report.rows}:
    assert glossary.describe(metric).sentence in text
  images = [a for t, a in reader.tags if t == 'img']
  assert [a['alt'] for a in images] == ['Bars of accuracies.']
  data = base64.b64decode(images[0]['src'].split(',')[1])
  assert data == report.pictures[0].png


def test_every_metric_shows_the_reference():
  _, text = _read(_report(rows=results.rows(('ft',))))
  metrics = {row.metric for row in results.rows(('ft',))}
  in_overview = 1
  assert text.count('Retrained (reference)') == len(metrics) + in_overview


def test_what_users_name_is_escaped():
  rows = [
    results_lib.Row(EVIL, EVIL, 0.5, 0.4, 0.6, 0.45, 0.05, 3),
    results_lib.Row(EVIL, 'fa', 0.5),
  ]
  reader, text = _read(
    _report(
      title=EVIL,
      lead=[EVIL],
      rows=rows,
      pictures=[html_lib.Picture('a', EVIL, _figure())],
      provenance={EVIL: EVIL, 'deep': {EVIL: {EVIL: [EVIL]}}},
      command=EVIL,
      warnings=[EVIL],
      failed={EVIL: (1, 2)},
    )
  )
  assert 'script' not in {tag for tag, _ in reader.tags}
  assert text.count(EVIL) > 10
  attack = [results_lib.Row(EVIL, f'ulira_{EVIL}', 0.5)]
  reader, _ = _read(_report(rows=attack))
  assert 'script' not in {tag for tag, _ in reader.tags}


@pytest.mark.parametrize(
  'rows',
  [
    [],
    [results_lib.Row('ft', 'fa', math.nan)],
    [
      results_lib.Row(
        'ft', 'rte_counted', math.inf, retrained=1.0, gap=math.inf
      )
    ],
    [results_lib.Row('unlearned', 'ulira_auc', math.nan)],
    results.rows(('ft',)),
    results.rows(('original', 'retrain', *(f'm{i}' for i in range(20)))),
  ],
)
def test_missing_one_and_many(rows):
  reader, text = _read(html_lib.Report(title='t', lead=[], rows=rows))
  assert (
    re.search(r'\bnan\b', html_lib.render(html_lib.Report('t', [], rows)))
    is None
  )


def test_the_overview_has_no_empty_cell_for_the_reference():
  overview = html_lib.overview(results.rows(('ft',)), {})
  assert overview.count('<td') == 2 * 9  # a name and eight metrics each
  assert '<td></td>' not in overview


def test_attack_rows_are_explained():
  rows = [results_lib.Row('unlearned', 'rmia_auc', 0.6, 0.55, 0.65, n=8)]
  _, text = _read(_report(rows=rows, failed={}))
  assert 'RMIA' in text
  assert glossary.describe('rmia_auc').sentence in text
  assert '[0.5500, 0.6500]' in text


def test_bundle_writes_all_files_the_same_way_twice(tmp_path):
  contents = []
  for name in ('a', 'b'):
    paths = html_lib.write_report(tmp_path / name, _report())
    contents.append([path.read_bytes() for path in paths])
  assert contents[0] == contents[1]
  written = [path.relative_to(tmp_path / 'b').as_posix() for path in paths]
  assert written == [
    'results.csv',
    'timing.csv',
    'results.json',
    'plots/bars.png',
    'report.html',
  ]
  steady, clocked = map(results_lib.read_csv, paths[:2])
  assert {row.metric for row in clocked} == {'rte'}
  assert len(steady) + len(clocked) == len(results.rows())
  content = json.loads(paths[2].read_text())
  assert content['provenance']['data'] == 'digits'
  assert content['failed'] == {'ga': [2, 16]}
  assert len(content['results']) == len(results.rows())


def test_a_number_that_is_not_available_says_why():
  rows = [
    results_lib.Row('ft', 'fr', math.nan),
    results_lib.Row('ga', 'fr', math.nan),
    results_lib.Row('msg', 'fr', 0.9),
  ]
  missing = {(m, 'fr'): f'{EVIL} is 0' for m in ('ft', 'ga')}
  reader, text = _read(_report(rows=rows, failed={}, missing=missing))
  assert f'Not available for FT, GA: {EVIL} is 0.' in text
  assert 'script' not in {tag for tag, _ in reader.tags}


def test_a_picture_that_fails_costs_no_number():
  problems: list[str] = []

  def fail():
    raise ZeroDivisionError('nothing to draw')

  assert html_lib.draw('roc', fail, problems) == []
  assert problems == [
    "The picture 'roc' could not be drawn (ZeroDivisionError: nothing to draw)."
  ]
  assert html_lib.draw('roc', lambda: None, problems) == []
  (picture,) = html_lib.draw('accuracy', _figure, problems)
  assert picture.caption and len(problems) == 1


def test_every_attack_has_one_row_in_the_overview():
  rows = [
    results_lib.Row('unlearned', 'rmia_auc', 0.6, 0.55, 0.65, 0.5, 0.1, 8),
    results_lib.Row('unlearned', 'rmia_tpr_0.1', 0.2),
    results_lib.Row('unlearned', 'excess_rmia_auc', 0.1, 0.02, 0.18, 0, 0.1, 8),
    results_lib.Row('retrain', 'rmia_auc', 0.5, 0.45, 0.55, n=8),
    results_lib.Row('unlearned', 'klom_mean', 0.3, retrained=0.2, n=80),
  ]
  table = html_lib.attack_overview(rows)
  assert table.count('<tr>') == 1 + 2
  assert '+0.1000' in table and '[0.0200, 0.1800]' in table
  assert html_lib.attack_overview(results.rows(('retrain',))) == ''
