"""A local folder in place of an object store."""

import pathlib

import pytest
from fsspec.implementations import dirfs, local

from jaxmu import remote


class Bucket(dirfs.DirFileSystem):
  """A folder in place of a store; requests may be made to fail."""

  cachable = False

  def __init__(self, folder: pathlib.Path):
    super().__init__(str(folder), local.LocalFileSystem(auto_mkdir=True))
    self.requests: list[str] = []
    self.written: list[str] = []
    self.errors = []  # raised by the next requests, the first one first

  def _request(self, name, *args, **kwargs):
    self.requests.append(name)
    if self.errors:
      raise self.errors.pop(0)
    return getattr(super(), name)(*args, **kwargs)

  def ls(self, *args, **kwargs):
    kwargs.pop('refresh', None)
    return self._request('ls', *args, **kwargs)

  def find(self, *args, **kwargs):
    return self._request('find', *args, **kwargs)

  def cat_file(self, *args, **kwargs):
    return self._request('cat_file', *args, **kwargs)

  def put(self, sources, keys):
    self.written += keys
    return self._request('put', sources, keys)

  def get(self, *args, **kwargs):
    return self._request('get', *args, **kwargs)

  def pipe_file(self, *args, **kwargs):
    return self._request('pipe_file', *args, **kwargs)

  def rm(self, keys):
    return self._request('rm', keys)

  def rm_file(self, *args, **kwargs):
    return self._request('rm_file', *args, **kwargs)


def use(patch: pytest.MonkeyPatch, folder: pathlib.Path) -> Bucket:
  """Let all URLs name places in a folder."""
  bucket = Bucket(folder)
  patch.setattr(remote, '_filesystem', lambda scheme: bucket)
  patch.setattr(remote, 'PAUSES', (0.0, 0.0))
  patch.setattr(remote, '_given_up', set())
  return bucket
