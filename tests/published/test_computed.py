"""Numbers computed from published tables, and what changes after that."""

import csv
import json
import shutil

import pytest

from jaxmu import main as job_command
from jaxmu import reproduce
from jaxmu.published import computed, record, rows, running, writing
from jaxmu.published.rows import Outcome
from jaxmu.report import checksums, results
from tests.published.conftest import ORIGIN, changed

pytestmark = pytest.mark.xdist_group('published')

FUNCTION = 'jaxmu.published.computed:fake'
TABLE = 'tables/small'


def fake(root):
  """Stands for what computes numbers from other published results."""
  numbers = results.read_csv(root / TABLE / 'results.csv')
  (fa,) = [r for r in numbers if (r.method, r.metric) == ('msg', 'fa')]
  given = [
    results.Row('small', 'claim_1', fa.value, fa.value - 0.1, fa.value + 0.1),
    results.Row('small', 'claim_1/p_if_false', 0.25),
    results.Row('small', 'claim_2', float('nan')),
  ]
  verdict = 'holds' if fa.value < 2 else 'does not hold'
  return computed.Computed(
    given,
    {'small/claim_1': verdict, 'small/claim_2': 'undecided'},
    {'claim_1': 'MSG forgets. FA is below 2.'},
  )


@pytest.fixture
def root(table, tmp_path, monkeypatch):
  """The published results of the small job, and numbers computed from them."""
  monkeypatch.setattr(computed, 'fake', fake, raising=False)
  shutil.copytree(table.root, tmp_path / 'root')
  root = tmp_path / 'root'
  writing.computed(root, 'claims', FUNCTION, 'tables', ORIGIN)
  return root


def judge(root, *patterns):
  """Return the verdict of each number, and what differs."""
  one = record.find(root)['claims']
  chosen = rows.choose(rows.every([one]), patterns or ['claims'])
  found = running.rerun(chosen, root / 'nowhere', lambda line: None)
  verdicts = {v.row.metric: v for v in running.judge(chosen, found)}
  return verdicts, found.differences


def edit(path, change):
  """Change the rows of a file, and renew the checksums of its folder."""
  with path.open(newline='') as file:
    content = list(csv.reader(file))
  change(content)
  with path.open('w', newline='') as file:
    csv.writer(file, lineterminator='\n').writerows(content)
  renew(path.parent)


def renew(folder):
  checksums.remove(folder)
  paths = sorted(path for path in folder.rglob('*') if path.is_file())
  checksums.write(folder, paths)


def rewrite(folder, change):
  """Change the record of a folder, and renew its checksums."""
  path = folder / record.FILE
  content = json.loads(path.read_text())
  change(content)
  path.write_text(json.dumps(content))
  renew(folder)


def add(metric, column, change):
  """Return what adds to a number of MSG, or of the small cell."""

  def apply(content):
    (row,) = [r for r in content if r[0] in ('msg', 'small') and r[1] == metric]
    row[column] = repr(float(row[column]) + change)

  return apply


def test_the_record_names_function_tables_and_verdicts(root, table):
  one = record.find(root)['claims']
  record.check(one)
  path = root / TABLE / checksums.FILE
  assert one.record['sources'] == {TABLE: computed.files.sha256(path)}
  assert (one.record['function'], one.record['study']) == (FUNCTION, 'tables')
  assert one.record['seconds'] >= 0
  known = rows.every([one])
  (fa,) = [r for r in rows.rows(table.one) if r.name == f'{TABLE}/msg/fa']
  assert known['claims/small/claim_1'].value == fa.value
  assert [row.verdict for row in known.values()] == ['holds', '', 'undecided']
  assert fa.verdict == ''


def test_computed_numbers_are_computed_again(root):
  verdicts, differences = judge(root)
  assert [v.outcome for v in verdicts.values()] == [Outcome.PASS] * 3
  assert verdicts['claim_1'].tolerance == pytest.approx(1e-6)
  assert differences == []
  verdicts, _ = judge(root, 'claims/small/claim_1')
  assert [*verdicts] == ['claim_1', 'claim_1/p_if_false']


@pytest.mark.parametrize(
  ('column', 'note'), [(2, 'rounding'), (3, 'low end'), (4, 'high end')]
)
def test_a_changed_number_fails(root, column, note):
  edit(root / 'claims' / 'results.csv', add('claim_1', column, 1e-4))
  verdicts, differences = judge(root)
  assert verdicts['claim_1'].outcome is Outcome.FAIL
  assert verdicts['claim_1'].note.startswith(note)
  others = {v.outcome for n, v in verdicts.items() if n != 'claim_1'}
  assert (others, differences) == ({Outcome.PASS}, [])


@pytest.mark.parametrize('claim', ['claim_1', 'claim_2'])
def test_a_changed_verdict_fails(root, claim):
  """Also that of a number that is not available."""
  name = f'small/{claim}'
  before = record.find(root)['claims'].record['verdicts'][name]
  rewrite(
    root / 'claims', lambda one: one['verdicts'].update({name: 'does not hold'})
  )
  verdicts, _ = judge(root)
  wrong = [n for n, v in verdicts.items() if v.outcome is Outcome.FAIL]
  assert wrong == [claim]
  assert verdicts[claim].note == f'verdict {before}'


def test_a_changed_table_is_named_and_its_number_fails(root):
  edit(root / TABLE / 'results.csv', add('fa', 2, 2.0))
  verdicts, differences = judge(root)
  assert differences == [f'{TABLE} has changed']
  assert verdicts['claim_1'].outcome is Outcome.FAIL
  for text in ('rounding', 'low end', 'high end', 'verdict does not hold'):
    assert text in verdicts['claim_1'].note
  assert verdicts['claim_1/p_if_false'].outcome is Outcome.PASS


def test_a_table_that_changes_no_number_is_named_too(root):
  edit(root / TABLE / 'results.csv', add('ta', 2, 0.01))
  verdicts, differences = judge(root)
  assert differences == [f'{TABLE} has changed']
  assert {v.outcome for v in verdicts.values()} == {Outcome.PASS}


def test_new_and_missing_tables_are_named(root, monkeypatch):
  shutil.copytree(root / TABLE, root / 'tables' / 'other')
  other = {'name': 'tables/other'}
  rewrite(root / 'tables' / 'other', lambda one: one.update(other))
  one = record.find(root)['claims']
  assert computed.changes(one) == ['tables/other is new']
  shutil.rmtree(root / TABLE)
  assert computed.changes(one) == [
    f'{TABLE} is missing',
    'tables/other is new',
  ]
  # Without its table the function gives nothing.
  monkeypatch.setattr(computed, 'fake', lambda root: computed.Computed([]))
  verdicts, _ = judge(root)
  assert {v.outcome for v in verdicts.values()} == {Outcome.FAIL}
  assert {v.note for v in verdicts.values()} == {'no longer computed'}


def test_only_functions_of_the_package_are_called(root):
  elsewhere = changed(record.find(root)['claims'], function='os:getcwd')
  chosen = rows.rows(elsewhere)
  with pytest.raises(ValueError, match='record.json: function = .* of jaxmu'):
    running.rerun(chosen, root, lambda line: None)
  with pytest.raises(ValueError, match='leave out --read'):
    running.read(chosen, root)


@pytest.mark.parametrize('place', ['jaxmu.nowhere:f', 'jaxmu.claims:nothing'])
def test_a_function_that_is_gone_is_named(root, place):
  chosen = rows.rows(changed(record.find(root)['claims'], function=place))
  with pytest.raises(ValueError, match=f'{place}.* cannot be found .*version'):
    running.rerun(chosen, root, lambda line: None)


@pytest.mark.parametrize(
  'field', ['function', 'study', 'sources', 'verdicts', 'versions', 'date']
)
def test_a_record_with_a_value_of_another_type_is_refused(root, field):
  rewrite(root / 'claims', lambda one: one.update({field: 3}))
  with pytest.raises(ValueError, match=f'record.json: {field} = 3 is no '):
    record.find(root)


def test_numbers_without_scores_say_what_to_leave_out(root):
  chosen = rows.rows(record.find(root)['claims'])
  with pytest.raises(ValueError, match='no published scores; leave out --from'):
    running.from_scores(chosen)


def test_a_record_without_its_tables_is_refused(root):
  rewrite(root / 'claims', lambda one: one.pop('sources'))
  with pytest.raises(ValueError, match='has no sources'):
    record.find(root)


def test_only_the_meanings_of_what_is_shown_are_told(root, capsys):
  reproduce.main(['--list', 'claims/small/claim_2', f'--published={root}'])
  assert 'MSG forgets' not in capsys.readouterr().out


def test_damaged_tables_are_not_read(root):
  with pytest.raises(ValueError, match='has no table of null'):
    writing.computed(root, 'claims', FUNCTION, 'null', ORIGIN)
  path = root / TABLE / 'per_cluster.csv'
  path.write_text(path.read_text().replace('0.', '0.1', 1))
  with pytest.raises(ValueError, match='per_cluster.csv was changed'):
    writing.computed(root, 'claims', FUNCTION, 'tables', ORIGIN)


def test_the_command_says_what_it_compares(root, monkeypatch, capsys):
  monkeypatch.setattr(job_command, 'set_up_jax', lambda config: None)
  argv = ['claims/small/claim_1', f'--published={root}']
  reproduce.main(['--list', *argv])
  lines = capsys.readouterr().out.splitlines()
  assert f'  {FUNCTION}, from 1 table of tables' in lines
  meaning = '  claim_1: MSG forgets. FA is below 2.'
  assert lines.count(meaning) == 1
  assert lines[-2].split()[0] == 'claims/small/claim_1'
  assert lines[-2].endswith('holds')
  reproduce.main(argv)
  lines = capsys.readouterr().out.splitlines()
  assert lines.count(meaning) == 1
  head, number, _, last = lines[-4:]
  assert head.split()[-4:] == ['verdict', 'tolerance', 'found', 'result']
  assert number.split()[-5:] == [
    *('holds', '1.0e-06', number.split()[1], 'pass', '(rounding)')
  ]
  assert last == '2 pass'
  assert 'from the tables and with the versions of' in lines[-5]
  edit(root / TABLE / 'results.csv', add('fa', 2, 2.0))
  with pytest.raises(SystemExit) as end:
    reproduce.main(argv)
  assert end.value.code == 1
  lines = capsys.readouterr().out.splitlines()
  assert lines[-1] == '1 pass, 1 FAIL'
  told = f'not as published: {TABLE} has changed'
  assert told in lines
