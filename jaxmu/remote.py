"""Work directories in an object store: `s3://bucket/path`, `gs://bucket/path`.

Jobs, searches and sweeps write to a local folder, the mirror of the store,

  CACHE/mirror-of-s3/bucket/path

in which renames are atomic and locks exist; what other machines may need is
copied from there to the store. `mirror` and `url` translate between the two.

The functions use fsspec, as etils.epath does, which Orbax uses for its paths
and tensorflow-datasets too. Unlike epath, they remember no listing, since
other machines write to the store too, and copy several files at a time. They
copy whole files: each object appears whole or not at all, as stores guarantee
for one PUT. A store that does not answer is asked again for several minutes.
No other module imports fsspec, and only the extras `jaxmu[s3]` and
`jaxmu[gcs]` install its packages for stores.
"""

import base64
import binascii
import datetime
import errno
import functools
import logging
import pathlib
import re
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

# Scheme of a URL -> package that fsspec needs for it, and our extra with it.
SCHEMES = {'s3': ('s3fs', 's3'), 'gs': ('gcsfs', 'gcs')}
_MIRRORS = {f'mirror-of-{scheme}': scheme for scheme in SCHEMES}

# Seconds between two attempts to reach a store: seven minutes in all.
PAUSES = (1, 2, 5, 10, 20, 30, *[60] * 6)

_LOCAL = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.ENAMETOOLONG)
# Errors of botocore and google-auth that waiting does not cure.
_SETUP = (
  *('NoCredentialsError', 'PartialCredentialsError', 'ProfileNotFound'),
  *('NoRegionError', 'ParamValidationError', 'DefaultCredentialsError'),
)
_MARKER = '.jaxmu'

log = logging.getLogger(__name__)

_given_up: set[str] = set()  # buckets that did not answer; they are not awaited


class StoreError(OSError):
  """An object store refuses a request, or cannot be reached for long."""


class Entry(NamedTuple):
  """A child of a folder in a store.

  Attributes:
    folder: whether it is a folder.
    size: in bytes.
    md5: of the content, as hex digits; '' if the store does not tell.
    written: when, in seconds since the epoch by the clock of the store; 0 if
      that is not known.
  """

  folder: bool
  size: int
  md5: str
  written: float


def is_url(text: str) -> bool:
  """Return whether a path names a place in a store, known or not.

  Example:
    >>> is_url('s3://bucket/path'), is_url('ftp://host'), is_url('work/s3')
    (True, True, False)
  """
  # pathlib writes s3:/bucket.
  return bool(re.match(r'[a-z][a-z0-9+.-]+://|(s3|gs):/', text))


def mirror(text: str, cache: pathlib.Path) -> pathlib.Path:
  """Return the local mirror of a place in a store.

  Args:
    text: its URL.
    cache: the folder for mirrors.

  Raises:
    ValueError: the scheme is unknown, or the URL names no bucket.

  Example:
    >>> path = mirror('s3://bucket/a/', pathlib.Path('cache'))
    >>> str(path), url(path / 'b')
    ('cache/mirror-of-s3/bucket/a', 's3://bucket/a/b')
  """
  scheme, _, rest = text.partition(':')
  parts = [part for part in rest.split('/') if part]
  if scheme not in SCHEMES:
    raise ValueError(
      f'{text!r}: no object store {scheme!r}; give s3://BUCKET/PATH, '
      'gs://BUCKET/PATH or a folder'
    )
  if not parts or {'.', '..'} & set(parts):
    raise ValueError(f'{text!r} names no bucket; give {scheme}://BUCKET/PATH')
  return pathlib.Path(cache, f'mirror-of-{scheme}', *parts)


def url(path: pathlib.Path) -> str:
  """Return the URL whose mirror a path is; '' for any other path."""
  for index, part in enumerate(path.parts[:-1]):
    if part in _MIRRORS:
      return f'{_MIRRORS[part]}://{"/".join(path.parts[index + 1 :])}'
  return ''


def check(place: str) -> None:
  """Check that objects can be written below a URL, by writing one.

  Raises:
    ImportError: a package is not installed.
    StoreError: they cannot.
  """
  content = b'a work directory of jaxmu\n'
  _reach(place, lambda fs, key: fs.pipe_file(f'{key}/{_MARKER}', content))


def read(place: str) -> bytes | None:
  """Return the content of an object; None if there is none.

  Raises:
    StoreError: it cannot be read.
  """
  return _reach(place, lambda fs, key: fs.cat_file(key), absent=None)


def put(copies: Mapping[pathlib.Path, str]) -> None:
  """Copy local files to URLs of one bucket, several at a time.

  Raises:
    StoreError: they cannot be written.
  """
  sources = [str(path) for path in copies]
  keys = [_key(place) for place in copies.values()]
  if copies:
    first = next(iter(copies.values()))
    _reach(first, lambda fs, _: fs.put(sources, keys))


def get(copies: Mapping[str, pathlib.Path]) -> None:
  """Copy objects of one bucket to local files, several at a time.

  Raises:
    FileNotFoundError: there is no such object.
    StoreError: they cannot be read.
    OSError: the local files cannot be written.
  """
  keys = [_key(place) for place in copies]
  targets = [str(path) for path in copies.values()]
  if copies:
    _reach(next(iter(copies)), lambda fs, _: fs.get(keys, targets))


def entries(place: str) -> dict[str, Entry]:
  """Return the children of a folder by name; none if there is no such folder.

  Raises:
    StoreError: it cannot be read.
  """
  found = _reach(
    place, lambda fs, key: fs.ls(key, detail=True, refresh=True), absent=[]
  )
  children = {}
  for one in found:
    key = one['name'].strip('/')
    if key != _key(place):
      children[key.rpartition('/')[2]] = _entry(one)
  return children


def objects(place: str) -> dict[str, Entry]:
  """Return every object below a folder, by its path from there.

  Raises:
    StoreError: it cannot be read.
  """
  found = _reach(place, lambda fs, key: fs.find(key, detail=True), absent={})
  start = f'{_key(place)}/'
  return {
    key.removeprefix(start): _entry(one)
    for key, one in found.items()
    if key.startswith(start)
  }


def _entry(one: Mapping[str, Any]) -> Entry:
  """Return an entry of a listing by fsspec."""
  written = one.get('LastModified') or one.get('updated') or one.get('mtime')
  if isinstance(written, str):
    written = datetime.datetime.fromisoformat(written)
  if isinstance(written, datetime.datetime):
    written = written.timestamp()
  return Entry(
    one['type'] == 'directory', one['size'] or 0, _md5(one), written or 0.0
  )


def remove(place: str) -> None:
  """Remove an object, if there is one.

  Raises:
    StoreError: it cannot be removed.
  """
  _reach(place, lambda fs, key: fs.rm_file(key), absent=None)


def remove_all(places: Sequence[str]) -> None:
  """Remove objects of one bucket, many at a time.

  Raises:
    StoreError: they cannot be removed.
  """
  if places:
    keys = [_key(place) for place in places]
    _reach(places[0], lambda fs, _: fs.rm(keys), absent=None)


def _key(place: str) -> str:
  """Return bucket and path of a URL."""
  return place.partition('://')[2]


def _md5(one: Mapping[str, Any]) -> str:
  """Return the MD5 of a listed object, as S3 and Google's store give it.

  The tag of an object that S3 encrypted or received in parts is no MD5 of its
  content; such objects are copied again.
  """
  tag = str(one.get('ETag', '')).strip('"')
  if re.fullmatch('[0-9a-f]{32}', tag):
    return tag
  try:
    return base64.b64decode(one.get('md5Hash', '')).hex()
  except binascii.Error:
    return ''


@functools.cache
def _filesystem(scheme: str) -> Any:
  """Return fsspec's file system, which remembers no listing."""
  import fsspec

  # gcsfs warns at each request if it may not ask what kind a bucket is of.
  logging.getLogger(SCHEMES[scheme][0]).setLevel(logging.ERROR)
  return fsspec.filesystem(scheme, use_listings_cache=False)


_RAISE: Any = object()


def _reach(
  place: str, call: Callable[[Any, str], Any], absent: Any = _RAISE
) -> Any:
  """Perform a request, again and again while the store does not answer.

  Args:
    place: its URL.
    call: performs it, given the file system and the key.
    absent: what to return where there is no such object.

  Raises:
    FileNotFoundError: there is none, and `absent` is not given.
    StoreError: the store refuses, or does not answer for all of `PAUSES`.
  """
  scheme, _, key = place.partition('://')
  bucket = f'{scheme}://{key.partition("/")[0]}'
  pauses = () if bucket in _given_up else PAUSES
  for turn, pause in enumerate((*pauses, None)):
    try:
      result = call(_connect(scheme, place), key)
      _given_up.discard(bucket)
      return result
    except ImportError:
      raise
    except FileNotFoundError as error:
      if absent is not _RAISE:
        return absent
      raise FileNotFoundError(
        f'{place}: no such bucket or object; check its name'
      ) from error
    except Exception as error:  # botocore, aiohttp and google have their own
      if isinstance(error, OSError) and error.errno in _LOCAL:
        raise
      if _is_refusal(error):
        raise StoreError(
          f'{place}: the store refuses access ({_line(error)}); check the '
          'credentials and their rights'
        ) from error
      if pause is None:
        _given_up.add(bucket)
        raise StoreError(
          f'{place} cannot be reached ({_line(error)}); finished work is on '
          'this machine, and the same command continues and uploads it'
        ) from error
      if not turn:
        log.warning(
          '%s cannot be reached (%s); trying again for %d minutes',
          *(bucket, _line(error), max(1, round(sum(pauses) / 60))),
        )
    time.sleep(pause)
  raise AssertionError('the last attempt returns or raises')


def _connect(scheme: str, place: str) -> Any:
  try:
    return _filesystem(scheme)
  except ImportError as error:
    package, extra = SCHEMES[scheme]
    raise ImportError(
      f'{place} needs the package {package} ({error}); install it with '
      f"pip install 'jaxmu[{extra}]'"
    ) from error


def _is_refusal(error: Exception) -> bool:
  """Return whether an error is one that waiting does not cure."""
  kinds = {kind.__name__ for kind in type(error).__mro__}
  return isinstance(error, PermissionError) or bool(kinds & set(_SETUP))


def _line(error: Exception) -> str:
  text = ' '.join(str(error).split())[:200]
  return text or type(error).__name__
