"""Read a folder of pictures, one folder per class.

  DIR/<class>/<image>.png               or
  DIR/train/<class>/..., DIR/test/<class>/...

`list_folder` lists the files and what is left out. `read` checks all headers
before it decodes the first picture: names, sizes, depth and number of frames.
`encoded_rgb` checks a picture of UTKFace in the same way.
"""

import collections
import contextlib
import dataclasses
import io
import os
import pathlib
from collections.abc import Iterator
from typing import Any

import numpy as np
from PIL import Image, ImageOps

from jaxmu import terms
from jaxmu.data import catalog, formats

File = pathlib.Path | io.BytesIO

SUFFIXES = ('.bmp', '.gif', '.jpeg', '.jpg', '.png', '.tif', '.tiff', '.webp')
# By content. Others are not tried: Pillow runs PostScript in a program.
_FORMATS = ('BMP', 'GIF', 'JPEG', 'PNG', 'TIFF', 'WEBP')
_LARGEST = 89_478_485  # pixels of one picture, Pillow's own limit
# Tags of EXIF and TIFF.
_ORIENTATION, _TIFF_WIDTH, _TIFF_HEIGHT = 0x0112, 0x0100, 0x0101
_SHOWN = 8  # kinds of left-out files that are listed by name


@dataclasses.dataclass(frozen=True)
class Listing:
  """The files of an image folder.

  Attributes:
    folder: which one.
    class_names: names of the class folders, ascending; the position is the
      label.
    parts: paths and labels of the pictures, of one part or of train and test.
    left_out: number of files that are not used, by what they are: a folder
      (`validation/`) or a kind of file (`*.txt`). Hidden files do not count.
  """

  folder: pathlib.Path
  class_names: tuple[str, ...]
  parts: tuple[list[tuple[pathlib.Path, int]], ...]
  left_out: dict[str, int]

  def left_out_line(self) -> str:
    """Return what is left out in one line, or an empty string."""
    if not self.left_out:
      return ''
    kinds = sorted(self.left_out.items(), key=lambda item: (-item[1], item[0]))
    named = [f'{kind} ({count:,})' for kind, count in kinds[:_SHOWN]]
    more = sum(count for _, count in kinds[_SHOWN:])
    named += [f'others ({more:,})'] * bool(more)
    line = (
      f'{terms.count(sum(self.left_out.values()), "file")} in {self.folder} '
      f'left out: {", ".join(named)}'
    )
    # Names may hold bytes that are not text.
    return line.encode('utf-8', 'backslashreplace').decode()


def list_folder(folder: pathlib.Path) -> Listing:
  """List the pictures below `folder` by part and class.

  Classes are numbered in the order of their folder names, pictures are listed
  in the order of their file names.

  Raises:
    ValueError: it is not a folder, has fewer than two classes, a class without
      pictures, one of the two parts only, or parts of different classes.
  """
  folder = folder.absolute()
  if not folder.is_dir():
    raise ValueError(f'{folder} is not a folder')
  parts = [folder / part for part in formats.PARTS]
  if not all(part.is_dir() for part in parts):
    _refuse_half(folder, parts)
    parts = [folder]
  names = [_class_folders(part) for part in parts]
  if names[0] != names[-1]:
    raise ValueError(
      f'{parts[0]} has the classes {names[0]}, {parts[-1]} {names[-1]}: both '
      'need the same folders'
    )
  listed = tuple(_list_part(part, names[0]) for part in parts)
  return Listing(
    folder=folder,
    class_names=tuple(names[0]),
    parts=listed,
    left_out=_left_out(folder, {file for part in listed for file, _ in part}),
  )


def read(listing: Listing, *, size: int | None) -> list[formats.Block]:
  """Decode all pictures of a listing as RGB.

  Pictures are rotated according to their EXIF orientation.

  Args:
    listing: what to read.
    size: resize to this height and width; None keeps pictures that all have
      one size.

  Returns:
    Images u8[N, H, W, 3] and labels i32[N] of each part.

  Raises:
    ValueError: a picture cannot be decoded, has more than 8 bits per channel,
      transparent pixels or several frames, or sizes differ.
  """
  shape = _check_headers(listing, size)
  blocks = []
  for part in listing.parts:
    image = np.empty((len(part), *shape, 3), np.uint8)
    for place, (file, _) in enumerate(part):
      pixels = _decode(file)
      if size is not None:
        pixels = catalog.to_model_input(pixels[None], size=size)[0]
      if pixels.shape[:2] != shape:  # a PNG with its EXIF after the pixels
        raise ValueError(_sizes_differ(part[0][0], shape, file, pixels.shape))
      image[place] = pixels
    label = np.array([number for _, number in part], np.int32)
    blocks.append((image, label))
  return blocks


def _refuse_half(folder: pathlib.Path, parts: list[pathlib.Path]) -> None:
  """Raise ValueError if `train/` or `test/` exists without the other."""
  for part, other in (parts, parts[::-1]):
    if part.is_dir() and any(child.is_dir() for child in part.iterdir()):
      raise ValueError(
        f'{folder} has {part.name}/<class>/ but no {other.name}/<class>/: add '
        f'it, or give {part} to have a test part split off at random'
      )


def _class_folders(folder: pathlib.Path) -> list[str]:
  names = sorted(
    child.name
    for child in folder.iterdir()
    if child.is_dir() and not child.name.startswith('.')
  )
  if len(names) < 2:
    raise ValueError(
      f'{folder} has {len(names)} class folders: put the images of each class '
      'into a folder of its own, <class>/<image>.png'
    )
  return names


def _list_part(
  folder: pathlib.Path, names: list[str]
) -> list[tuple[pathlib.Path, int]]:
  """List the pictures of all classes of one part."""
  listed = []
  for number, name in enumerate(names):
    with os.scandir(folder / name) as entries:
      files = sorted(
        entry.name
        for entry in entries
        if entry.name.lower().endswith(SUFFIXES)
        and not entry.name.startswith('.')
        and not entry.is_dir()
      )
    if not files:
      raise ValueError(
        f'{folder / name} has no images ({", ".join(SUFFIXES)}): remove the '
        'folder or fill it'
      )
    listed += [(folder / name / file, number) for file in files]
  return listed


def _left_out(folder: pathlib.Path, used: set[pathlib.Path]) -> dict[str, int]:
  """Count the files below `folder` that are not used, by what they are."""
  in_use = {str(file) for file in used}
  class_folders = {os.path.dirname(file) for file in in_use}
  known = {*class_folders, *map(os.path.dirname, class_folders), str(folder)}
  counts: collections.Counter[str] = collections.Counter()
  for place, below, names in os.walk(folder):
    below[:] = [name for name in below if not name.startswith('.')]
    # The topmost folder above these files in which nothing is used.
    steps = [place]
    while steps[-1] not in known:
      steps.append(os.path.dirname(steps[-1]))
    unused = os.path.relpath(steps[-2], folder) if len(steps) > 1 else ''
    for name in names:
      if name.startswith('.') or os.path.join(place, name) in in_use:
        continue
      suffix = os.path.splitext(name)[1].lower()
      kind = f'{unused}/' if unused else f'*{suffix}' if suffix else name
      counts[kind] += 1
  return dict(counts)


def _check_headers(listing: Listing, size: int | None) -> tuple[int, int]:
  """Check all headers and return the height and width of the result."""
  first: tuple[tuple[int, int], pathlib.Path] | None = None
  for file in _by_turns(listing):
    with _opened(file) as image:
      shape = _check_header(image, file)
    if first is None:
      first = shape, file
    if size is None and shape != first[0]:
      raise ValueError(_sizes_differ(first[1], first[0], file, shape))
  assert first is not None  # no class is empty
  return first[0] if size is None else (size, size)


def _sizes_differ(
  first: pathlib.Path, shape: tuple, second: pathlib.Path, other: tuple
) -> str:
  return (
    f'images differ in size ({first}: {shape[:2]}; {second}: {other[:2]}): '
    'choose one with --image_size=64 (`size` of datasets.from_folder)'
  )


def _by_turns(listing: Listing) -> list[pathlib.Path]:
  """Return all files, the first of each class first, then the second, ...

  Sizes often differ by class; this order compares the classes first.
  """
  counts: collections.Counter[tuple[int, int]] = collections.Counter()
  turns = []
  for number, part in enumerate(listing.parts):
    for file, label in part:
      turns.append((counts[number, label], file))
      counts[number, label] += 1
  turns.sort(key=lambda turn: turn[0])
  return [file for _, file in turns]


@contextlib.contextmanager
def _opened(file: File, name: Any = None) -> Iterator[Image.Image]:
  """Open a picture and read its header; errors name the file."""
  name = name or file
  # Opening a pipe would block until something writes to it.
  if isinstance(file, pathlib.Path) and not file.is_file():
    raise ValueError(f'{name} is not a regular file: repair or remove it')
  with _named_errors(name, lambda: Image.open(file, formats=_FORMATS)) as image:
    yield image


def _named_errors(file: Any, step: Any) -> Any:
  """Run a step of decoding; turn any exception into one line."""
  try:
    return step()
  except Exception as error:  # Pillow's readers raise many types
    raise ValueError(
      f'{file} cannot be decoded ({error}): repair or remove it'
    ) from error


def _check_header(image: Image.Image, file: Any) -> tuple[int, int]:
  """Return height and width, upright, of a picture that can be used."""
  if image.width * image.height > _LARGEST:
    raise ValueError(
      f'{file} has {image.width} x {image.height} pixels, more than '
      f'{_LARGEST:,}: make it smaller or remove it'
    )
  # Pillow truncates 16-bit colours to 8 bits; only the raw mode shows it.
  deep = any(';16' in str(tile[3]) for tile in getattr(image, 'tile', ()))
  if deep or image.mode == 'F' or image.mode.startswith('I'):
    raise ValueError(
      f'{file} has pixels of more than 8 bits (mode {image.mode}), which '
      'would be cut off at 255: scale them to 0..255 and save the picture '
      'with 8 bits, or remove it'
    )
  frames = _named_errors(file, lambda: getattr(image, 'n_frames', 1))
  # In an MPO, which cameras write, the first frame is the picture.
  if frames > 1 and image.format != 'MPO':
    raise ValueError(
      f'{file} has {frames} frames: save one of them, or remove the file'
    )
  turned = False
  # Without this chunk, Pillow would decode the whole PNG to look for it.
  if image.format != 'PNG' or 'exif' in image.info:
    exif = _named_errors(file, image.getexif)
    turned = exif.get(_ORIENTATION, 1) in (5, 6, 7, 8)
  height, width = image.height, image.width
  if image.format == 'TIFF':  # Pillow turns these itself, in some versions
    tags = image.tag_v2  # type: ignore[attr-defined]
    height, width = tags[_TIFF_HEIGHT], tags[_TIFF_WIDTH]
  return (width, height) if turned else (height, width)


def _decode(file: pathlib.Path) -> np.ndarray:
  """Return a picture whose header has been checked as u8[H, W, 3]."""
  with _opened(file) as image:
    return np.asarray(_upright_rgb(image, file))


def _upright_rgb(image: Image.Image, file: Any) -> Image.Image:
  """Decode a picture whose header has been checked, upright and as RGB."""
  upright = _named_errors(file, lambda: ImageOps.exif_transpose(image))
  if 'A' in upright.getbands() or 'transparency' in upright.info:
    with_alpha = _named_errors(file, lambda: upright.convert('RGBA'))
    if with_alpha.getextrema()[3][0] < 255:
      raise ValueError(
        f'{file} has transparent pixels, whose colour is invisible: save it '
        'on a background, or remove it'
      )
    upright = with_alpha
  return _named_errors(file, lambda: upright.convert('RGB'))


def encoded_rgb(name: str, content: bytes | pathlib.Path) -> bytes:
  """Return an encoded picture that any decoder reads as upright RGB.

  Args:
    name: of the picture, for messages.
    content: the file, or its bytes.

  Returns:
    The bytes of the file if it is such a JPEG or PNG, else those of a PNG.

  Raises:
    ValueError: it cannot be decoded, has more than 8 bits per channel,
      transparent pixels or several frames.
  """
  file = io.BytesIO(content) if isinstance(content, bytes) else content
  with _opened(file, name) as image:
    _check_header(image, name)
    as_it_is = image.mode == 'RGB' and image.format in ('JPEG', 'MPO', 'PNG')
    upright = _upright_rgb(image, name)
    if as_it_is and image.getexif().get(_ORIENTATION, 1) == 1:
      return content if isinstance(content, bytes) else content.read_bytes()
  buffer = io.BytesIO()
  upright.save(buffer, 'png')
  return buffer.getvalue()
