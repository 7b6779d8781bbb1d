"""End a command at SIGINT and SIGTERM: at once, at any moment, with one line.

Python raises KeyboardInterrupt in whatever runs: a compilation defers it for
minutes, libraries swallow it, and threads that are at work print tracebacks or
crash. What jaxmu writes to disk survives a kill at any moment, so the process
ends without any of this.
"""

import contextlib
import os
import shlex
import signal
import sys
import threading
from typing import Any, NoReturn

ENDING = (signal.SIGINT, signal.SIGTERM)
_SHOW_CURSOR = '\033[?25h'  # a bar of progress hides it
_FLUSH_SECONDS = 0.5

_state: dict[str, Any] = {'kept': '', 'watched': False}


def watch(kept: str) -> None:
  """End this process at SIGINT and SIGTERM; further calls change the line.

  Signals that the parent process has chosen to ignore stay ignored.

  Args:
    kept: what is kept, as in 'finished models are kept'; '' for nothing.
  """
  _state['kept'] = kept
  main = threading.current_thread() is threading.main_thread()
  if _state['watched'] or not main:
    return
  _state['watched'] = True
  reader, writer = os.pipe()
  os.set_blocking(writer, False)
  # The system's handler writes the number of the signal to this pipe, also
  # while the main thread is busy in a compiler.
  signal.set_wakeup_fd(writer, warn_on_full_buffer=False)
  for number in ENDING:
    if signal.getsignal(number) is not signal.SIG_IGN:
      signal.signal(number, lambda *_: None)
  threading.Thread(target=_wait, args=(reader,), daemon=True).start()
  os.register_at_fork(after_in_child=_restore)


def line(number: int) -> str:
  """Return what is printed at a signal: what is kept, and how to go on."""
  first = 'interrupted' if number == signal.SIGINT else 'stopped by SIGTERM'
  if not _state['watched']:  # another program called a command
    return first
  kept = _state['kept']
  goes_on = 'continue' if kept else 'start again'
  return '; '.join(filter(None, [first, kept, f'{goes_on} with: {_command()}']))


def _command() -> str:
  """Return the command line of this process."""
  main = getattr(sys.modules['__main__'], '__spec__', None)
  program = ['python', '-m', main.name] if main else [sys.argv[0]]
  if main and main.name == 'jaxmu.__main__':
    program[-1] = 'jaxmu'
  return shlex.join([*program, *sys.argv[1:]])


def _wait(reader: int) -> None:
  while True:
    for number in os.read(reader, 16):
      if number in ENDING and signal.getsignal(number) is not signal.SIG_IGN:
        _end(number)


def _end(number: int) -> NoReturn:
  # A stream that nobody reads would block; the process ends all the same.
  flush = threading.Thread(target=_flush, daemon=True)
  flush.start()
  flush.join(_FLUSH_SECONDS)
  text = f'{line(number)}\n'
  if os.isatty(2):
    text = f'{_SHOW_CURSOR}\n{text}'
  with contextlib.suppress(OSError):
    os.write(2, text.encode(errors='backslashreplace'))
  os._exit(128 + number)


def _flush() -> None:
  with contextlib.suppress(OSError, ValueError):  # closed
    sys.stdout.flush()


def _restore() -> None:
  """Let a forked process, which has no such thread, end as usual."""
  signal.set_wakeup_fd(-1)
  signal.signal(signal.SIGINT, signal.default_int_handler)
  signal.signal(signal.SIGTERM, signal.SIG_DFL)
