"""Folders of pictures: files used, left out, and refused before decoding."""

import io
import os
import pathlib

import numpy as np
import pytest
from PIL import Image

from jaxmu.data import pictures
from tests.data import refusals, standins


def _pixels(height=8, width=8, seed=0):
  generator = np.random.default_rng(seed)
  return generator.integers(0, 256, (height, width, 3), dtype=np.uint8)


def _save(file, pixels=None, **options):
  file.parent.mkdir(parents=True, exist_ok=True)
  Image.fromarray(_pixels() if pixels is None else pixels).save(file, **options)


def _classes(folder, count=3):
  for name in ('cat', 'dog'):
    for k in range(count):
      _save(folder / name / f'{k}.png', _pixels(seed=k))


def test_what_is_left_out_is_counted_by_kind(tmp_path):
  for part in ('train', 'test'):
    _classes(tmp_path / part)
  for k in range(4):
    _save(tmp_path / 'validation' / 'cat' / f'{k}.png')
  _save(tmp_path / 'train' / 'cat' / 'more' / 'deep' / 'x.png')
  _save(tmp_path / 'test' / 'dog' / 'folder.png' / 'x.png')
  for place in ('list.csv', 'train/list.csv', 'train/dog/NOTES.TXT', 'LICENSE'):
    (tmp_path / place).write_text('')
  for hidden in ('.git/config', 'train/cat/.DS_Store', 'train/cat/.x.png'):
    (tmp_path / hidden).parent.mkdir(exist_ok=True)
    (tmp_path / hidden).write_text('')
  listing = pictures.list_folder(tmp_path)
  assert listing.left_out == {
    'validation/': 4,
    'train/cat/more/': 1,
    'test/dog/folder.png/': 1,
    '*.csv': 2,
    '*.txt': 1,
    'LICENSE': 1,
  }
  line = listing.left_out_line()
  assert line.startswith(f'10 files in {tmp_path} left out: validation/ (4)')
  assert '\n' not in line
  assert [len(part) for part in listing.parts] == [6, 6]


def test_nothing_left_out_says_nothing(tmp_path):
  _classes(tmp_path)
  assert pictures.list_folder(tmp_path).left_out_line() == ''


def test_folder_may_be_the_current_one(tmp_path, monkeypatch):
  _classes(tmp_path / 'train')
  _classes(tmp_path / 'test')
  _classes(tmp_path / 'validation')
  monkeypatch.chdir(tmp_path)
  for name in ('.', '../' + tmp_path.name, 'train/..'):
    left_out = pictures.list_folder(pathlib.Path(name)).left_out
    assert left_out == {'validation/': 6}


def test_many_kinds_are_summed_up(tmp_path):
  _classes(tmp_path)
  for k in range(12):
    (tmp_path / 'cat' / f'x.kind{k:02d}').write_text('')
  line = pictures.list_folder(tmp_path).left_out_line()
  assert line.startswith('12 files') and line.endswith('others (4)')


def test_headers_are_checked_before_any_picture_is_decoded(
  tmp_path, monkeypatch
):
  """Unequal sizes in any position are found without decoding or memory."""
  decoded = []
  monkeypatch.setattr(pictures, '_decode', decoded.append)
  refused = {
    'other size': lambda file: _save(file, _pixels(9)),
    'deep': lambda file: _save(file, np.zeros((8, 8), np.uint16)),
    'no picture': lambda file: file.write_bytes(b'no picture'),
    'empty': lambda file: file.write_bytes(b''),
    'PostScript': lambda file: file.write_bytes(b'%!PS-Adobe-3.0 EPSF-3.0\n'),
    'pipe': os.mkfifo,
    'link to nowhere': lambda file: file.symlink_to('nowhere.png'),
    'huge': lambda file: Image.new('1', (20_000, 20_000)).save(file),
  }
  accepted = []
  for what, make in refused.items():
    folder = tmp_path / what
    _classes(folder)
    make(folder / 'dog' / 'x.png')
    try:
      pictures.read(pictures.list_folder(folder), size=None)
      accepted.append(what)
    except ValueError as error:
      assert f'{folder}/dog/x.png' in str(error), what
      assert '\n' not in str(error), what
  assert not accepted
  assert not decoded


def test_first_pictures_of_all_classes_are_compared_first(tmp_path):
  for k in range(20):
    _save(tmp_path / 'cat' / f'{k:02d}.png', _pixels(8))
    _save(tmp_path / 'dog' / f'{k:02d}.png', _pixels(9))
  (tmp_path / 'cat' / '01.png').write_bytes(b'read only after the first two')
  with pytest.raises(ValueError, match=r'cat/00.*dog/00.*--image_size=64'):
    pictures.read(pictures.list_folder(tmp_path), size=None)


def test_pictures_of_16_bits_per_colour_are_refused(tmp_path):
  """Pillow reads them as 8 bits without a warning."""
  import struct
  import zlib

  def chunk(kind, content):
    body = kind + content
    return (
      struct.pack('>I', len(content))
      + body
      + struct.pack('>I', zlib.crc32(body))
    )

  rows = b''.join(b'\0' + bytes(8 * 6) for _ in range(8))
  png = b'\x89PNG\r\n\x1a\n' + chunk(
    b'IHDR', struct.pack('>IIBBBBB', 8, 8, 16, 2, 0, 0, 0)
  )
  png += chunk(b'IDAT', zlib.compress(rows)) + chunk(b'IEND', b'')
  _classes(tmp_path)
  (tmp_path / 'dog' / 'deep.png').write_bytes(png)
  assert Image.open(tmp_path / 'dog' / 'deep.png').mode == 'RGB'
  with pytest.raises(ValueError, match='deep.png has pixels of more than 8 b'):
    pictures.read(pictures.list_folder(tmp_path), size=None)


@pytest.mark.parametrize('suffix', ['png', 'jpg', 'tif', 'webp'])
def test_pictures_are_turned_upright(tmp_path, suffix):
  upright = np.zeros((6, 10, 3), np.uint8)
  upright[:, :5] = 200  # bright on the left
  exif = Image.Exif()
  exif[0x0112] = 6  # stored turned by 90 degrees
  options = {'quality': 95} if suffix in ('jpg', 'webp') else {}
  for name in ('cat', 'dog'):
    _save(tmp_path / name / 'plain.png', upright)
    _save(
      tmp_path / name / f'turned.{suffix}',
      np.rot90(upright).copy(),
      exif=exif,
      **options,
    )
  [(image, _)] = pictures.read(pictures.list_folder(tmp_path), size=None)
  assert image.shape == (4, 6, 10, 3)
  np.testing.assert_allclose(
    image[1].astype(int), image[0].astype(int), atol=40
  )


def test_transparency_is_refused_where_it_hides_a_colour(tmp_path):
  _classes(tmp_path)
  opaque = np.dstack([_pixels(), np.full((8, 8), 255, np.uint8)])
  _save(tmp_path / 'cat' / 'a.png', opaque)
  [(image, _)] = pictures.read(pictures.list_folder(tmp_path), size=None)
  np.testing.assert_array_equal(image[3], _pixels())
  opaque[0, 0, 3] = 0
  _save(tmp_path / 'cat' / 'a.png', opaque)
  with pytest.raises(ValueError, match='a.png has transparent pixels'):
    pictures.read(pictures.list_folder(tmp_path), size=None)


def test_several_frames_are_refused(tmp_path):
  _classes(tmp_path)
  frames = [Image.fromarray(_pixels(seed=k)) for k in range(3)]
  frames[0].save(
    tmp_path / 'cat' / 'x.gif', save_all=True, append_images=frames[1:]
  )
  with pytest.raises(ValueError, match='x.gif has 3 frames'):
    pictures.read(pictures.list_folder(tmp_path), size=None)


def test_picture_cut_short_is_named(tmp_path):
  _classes(tmp_path)
  file = tmp_path / 'cat' / '1.png'
  _save(file, _pixels(64, 64))
  file.write_bytes(file.read_bytes()[:500])
  with pytest.raises(ValueError, match='cat/1.png cannot be decoded'):
    pictures.read(pictures.list_folder(tmp_path), size=8)


def test_labels_and_order_follow_the_names(tmp_path):
  for k, name in enumerate(['zebra', 'ant']):
    for number in (2, 0, 1):
      _save(tmp_path / name / f'{number}.png', _pixels(seed=10 * k + number))
  listing = pictures.list_folder(tmp_path)
  [(image, label)] = pictures.read(listing, size=None)
  assert listing.class_names == ('ant', 'zebra')
  assert label.tolist() == [0, 0, 0, 1, 1, 1]
  expected = [_pixels(seed=s) for s in (10, 11, 12, 0, 1, 2)]
  np.testing.assert_array_equal(image, np.stack(expected))


def test_encoded_pictures_stay_or_become_rgb():
  """Those of UTKFace pass the same checks as those of a folder."""
  jpeg = standins.jpeg(0)
  assert pictures.encoded_rgb('a.jpg', jpeg) == jpeg
  grey = standins.jpeg(0, mode='L')
  converted = Image.open(io.BytesIO(pictures.encoded_rgb('g.jpg', grey)))
  assert converted.mode == 'RGB'
  expected = np.asarray(Image.open(io.BytesIO(grey)))
  np.testing.assert_array_equal(np.asarray(converted)[..., 1], expected)


def test_encoded_pictures_are_upright(tmp_path):
  exif = Image.Exif()
  exif[0x0112] = 6
  pixels = _pixels(4, 8)
  _save(tmp_path / 'a.png', pixels, exif=exif)
  turned = pictures.encoded_rgb('a.png', tmp_path / 'a.png')
  np.testing.assert_array_equal(
    np.asarray(Image.open(io.BytesIO(turned))), np.rot90(pixels, -1)
  )


def test_encoded_pictures_that_are_refused(tmp_path):
  """By bytes, as from an archive, and by path, as from a folder."""

  def encoded(image, kind='png'):
    file = io.BytesIO()
    image.save(file, kind)
    return file.getvalue()

  alpha = np.dstack([_pixels(), np.full((8, 8), 9, np.uint8)])
  two = io.BytesIO()
  frames = [Image.fromarray(_pixels(seed=k)) for k in range(2)]
  frames[0].save(two, 'gif', save_all=True, append_images=frames[1:])
  cases = [
    (standins.jpeg(0)[:200], 'a.jpg cannot be decoded'),
    (b'', 'a.jpg cannot be decoded'),
    (encoded(Image.fromarray(np.zeros((8, 8), np.uint16))), 'than 8 bits'),
    (encoded(Image.fromarray(alpha)), 'transparent'),
    (two.getvalue(), '2 frames'),
    (encoded(Image.new('1', (20_000, 20_000))), 'a.jpg .*pixels'),
  ]
  assert not refusals.unclear(
    lambda content: pictures.encoded_rgb('a.jpg', content), cases
  )
  (tmp_path / 'a.jpg').symlink_to('/dev/zero')
  os.mkfifo(tmp_path / 'b.jpg')
  assert not refusals.unclear(
    lambda name: pictures.encoded_rgb(name, tmp_path / name),
    [(name, 'is not a regular file') for name in ('a.jpg', 'b.jpg')],
  )
