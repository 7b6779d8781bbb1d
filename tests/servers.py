"""Servers of object stores on this machine, for tests."""

import contextlib
import socket
import subprocess
import sys
import threading
import time

import pytest


def needs(*packages: str) -> None:
  """Skip a test whose packages are not installed."""
  for name in packages:
    reason = f"{name} is not installed: pip install -e '.[test,servers]'"
    pytest.importorskip(name, reason=reason)


def wait_for(port: int) -> None:
  """Wait until a port of this machine answers."""
  for _ in range(600):
    with contextlib.suppress(OSError):
      socket.create_connection(('127.0.0.1', port)).close()
      return
    time.sleep(0.1)
  raise AssertionError(f'no server at port {port} after a minute')


def free_port() -> int:
  with socket.socket() as one:
    one.bind(('127.0.0.1', 0))
    return one.getsockname()[1]


class Gate:
  """A port that leads to another one, and can be closed for a while."""

  def __init__(self, target: int):
    self._target = target
    self.port = 0
    self.open()

  def open(self) -> None:
    self._listener = socket.create_server(('127.0.0.1', self.port))
    self.port = self._listener.getsockname()[1]
    self._links: list[socket.socket] = []
    threading.Thread(target=self._serve, daemon=True).start()

  def close(self) -> None:
    for one in (self._listener, *self._links):
      with contextlib.suppress(OSError):
        one.shutdown(socket.SHUT_RDWR)
      one.close()

  def _serve(self) -> None:
    listener, links = self._listener, self._links
    with contextlib.suppress(OSError):
      while True:
        near, _ = listener.accept()
        far = socket.create_connection(('127.0.0.1', self._target))
        links += [near, far]
        for pair in ((near, far), (far, near)):
          threading.Thread(target=self._copy, args=pair, daemon=True).start()

  def _copy(self, source: socket.socket, target: socket.socket) -> None:
    with contextlib.suppress(OSError):
      while block := source.recv(1 << 16):
        target.sendall(block)
      target.shutdown(socket.SHUT_WR)


class Server:
  """Moto's server with an empty bucket, behind a gate."""

  def __init__(self) -> None:
    self._port = free_port()
    self.start()
    self.gate = Gate(self._port)
    self.environment = {
      'AWS_ENDPOINT_URL': f'http://127.0.0.1:{self.gate.port}',
      'AWS_ACCESS_KEY_ID': 'test',
      'AWS_SECRET_ACCESS_KEY': 'test',
      'AWS_DEFAULT_REGION': 'us-east-1',
      'AWS_MAX_ATTEMPTS': '1',
    }

  def start(self) -> None:
    self._process = subprocess.Popen(
      [sys.executable, '-m', 'moto.server', '-p', str(self._port)],
      stdout=subprocess.DEVNULL,
      stderr=subprocess.DEVNULL,
    )
    wait_for(self._port)
    self.filesystem().mkdir('bucket')

  def stop(self) -> None:
    self._process.kill()
    self._process.wait()

  def filesystem(self):
    import s3fs

    return s3fs.S3FileSystem(
      key='test',
      secret='test',
      endpoint_url=f'http://127.0.0.1:{self._port}',
      use_listings_cache=False,
      skip_instance_cache=True,
    )
