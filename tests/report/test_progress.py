"""Progress: plain lines without a terminal, a bar with one."""

import io
import re
import subprocess
import sys
import threading

import pytest

from jaxmu.report import progress


class Clock:
  """A clock that the test moves."""

  def __init__(self):
    self.now = 0.0

  def __call__(self) -> float:
    return self.now


class Terminal(io.StringIO):
  def isatty(self) -> bool:
    return True


def _plain():
  stream, clock = io.StringIO(), Clock()
  return stream, clock, progress.Progress(stream, interval=10, clock=clock)


def test_plain_lines_now_and_then():
  stream, clock, bars = _plain()
  with bars, bars.stage('originals', 8, unit='models') as stage:
    for seconds in (30, 2, 2, 8, 2, 2, 2, 2):
      clock.now += seconds
      stage.advance()
  assert stream.getvalue().splitlines() == [
    'originals: 0 of 8 models',
    'originals: 1 of 8 models, 30 s, at most 3 min 30 s left',
    # Compilation, in the first 30 s, is no longer part of the rate.
    'originals: 4 of 8 models, 42 s, about 16 s left',
    'originals: 8 models in 50 s',
  ]


def test_lines_come_while_nothing_is_done():
  """A compilation takes minutes; the time since the start is shown."""
  stream, clock, said = io.StringIO(), Clock(), threading.Event()
  bars = progress.Progress(stream, interval=1e-3, clock=clock)

  def write(text):
    written = io.StringIO.write(stream, text)
    said.set()
    return written

  with bars, bars.stage('originals', 2, unit='models') as stage:
    stage.note('compiling')
    stream.write = write
    clock.now += 90
    assert said.wait(60)
  assert stream.getvalue().splitlines()[1] == (
    'originals: 0 of 2 models, 1 min 30 s, compiling'
  )


def test_the_unit_may_be_that_of_a_population():
  stream, clock, bars = _plain()
  unit = 'epochs of 4 models'
  with bars, bars.stage('originals', 8, unit=unit, per=4) as stage:
    for _ in range(4):
      clock.now += 10
      stage.advance(2)
  assert stream.getvalue().splitlines() == [
    'originals: 0 of 2 epochs of 4 models',
    'originals: 0 of 2 epochs of 4 models, 10 s, at most 30 s left',
    'originals: 1 of 2 epochs of 4 models, 20 s, about 20 s left',
    'originals: 1 of 2 epochs of 4 models, 30 s, about 10 s left',
    'originals: 2 epochs of 4 models in 40 s',
  ]
  with bars, bars.stage('msg', 1, unit=unit) as stage:
    stage.advance()
  assert 'msg: 1 epoch of 4 models in' in stream.getvalue()


def test_an_error_leaves_a_line_that_says_how_far_it_got():
  stream, clock, bars = _plain()
  with pytest.raises(KeyError), bars, bars.stage('attack', 3) as stage:
    stage.advance(2)
    clock.now += 5
    raise KeyError
  assert stream.getvalue().splitlines()[-1] == (
    'attack: stopped at 2 of 3 after 5 s'
  )


def test_a_single_unit_is_singular():
  stream, _, bars = _plain()
  with bars, bars.stage('attack', 1, unit='attacks') as stage:
    stage.advance()
  assert stream.getvalue().splitlines()[-1] == 'attack: 1 attack in 0 s'


def test_finish_is_said_once_and_works_without_with():
  stream, _, bars = _plain()
  stage = bars.stage('split', 0)
  stage.finish()
  stage.finish()
  assert stream.getvalue().count('split: 0 in 0 s') == 1


def test_lines_are_not_wrapped_or_read_as_markup():
  stream, _, bars = _plain()
  long = '[red]' + 'x' * 300
  bars.line(long)
  assert stream.getvalue() == long + '\n'


def test_advancing_from_many_threads_loses_nothing():
  stream, _, bars = _plain()
  with bars.stage('predict', 400) as stage:
    threads = [
      threading.Thread(target=lambda: [stage.advance() for _ in range(100)])
      for _ in range(4)
    ]
    for thread in threads:
      thread.start()
    for thread in threads:
      thread.join()
  assert stream.getvalue().splitlines()[-1] == 'predict: 400 in 0 s'


def test_a_terminal_gets_a_bar_and_keeps_the_last_line(monkeypatch):
  monkeypatch.setenv('TERM', 'xterm')
  stream, clock = Terminal(), Clock()
  with progress.Progress(stream, clock=clock) as bars:
    with bars.stage('originals [a]', 4, unit='models') as stage:
      stage.note('compiling')
      clock.now += 3
      stage.advance(2)
      assert bars.bars is not None
      task = bars.bars.tasks[0]
      assert (task.completed, task.total) == (2, 4)
      assert task.fields['note'] == 'compiling'
      assert task.fields['left'] == 'at most 3 s left'
      stage.advance(2)
  assert 'originals [a]: 4 models in 3 s' in stream.getvalue()


def test_a_child_process_without_a_terminal_prints_plain_text():
  code = (
    'from jaxmu.report import progress\n'
    'with progress.Progress() as bars, bars.stage("a", 1) as stage:\n'
    '  stage.advance()\n'
  )
  done = subprocess.run(
    [sys.executable, '-c', code], capture_output=True, text=True, check=True
  )
  assert re.fullmatch(r'a: 0 of 1\na: 1 in \d+ s\n', done.stdout)
