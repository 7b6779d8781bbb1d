"""The command that puts data sets in place, and the forms it accepts."""

import re

import numpy as np
import pytest
from PIL import Image

from jaxmu import prepare
from jaxmu.data import datasets, pictures
from tests.data import standins, stock


@pytest.fixture
def run(tmp_path, monkeypatch, capsys):
  """Run the command; return its status, output and errors."""
  monkeypatch.setenv('JAXMU_CACHE_DIR', str(tmp_path / 'cache'))
  monkeypatch.setenv('JAXMU_DATA_DIR', str(tmp_path / 'data'))

  def call(*argv):
    capsys.readouterr()
    status = prepare.main([str(arg) for arg in argv])
    captured = capsys.readouterr()
    return status, captured.out, captured.err

  return call


def _pictures(folder, classes, count, size=8):
  """Write `count` pictures per class; return the pixels in reading order."""
  generator = np.random.default_rng(len(str(folder)))
  pixels = []
  for name in classes:
    (folder / name).mkdir(parents=True)
    for k in range(count):
      image = generator.integers(0, 256, (size, size, 3), dtype=np.uint8)
      Image.fromarray(image).save(folder / name / f'{k:02d}.png')
      pixels.append(image)
  return np.stack(pixels)


def test_image_folder_becomes_a_data_set(run, tmp_path):
  pixels = _pictures(tmp_path / 'pets', ['dog', 'cat'], 10)
  status, out, err = run('pets', '--from_images', tmp_path / 'pets', '--flip')
  assert (status, err) == (0, '')
  assert 'pets: 16 + 4 examples of 8 x 8, 2 classes' in out
  source = datasets.load('pets')
  assert source.transform.flip
  # `cat` comes before `dog`; each picture is found again under its label.
  expected = {p.tobytes(): int(k < 10) for k, p in enumerate(pixels)}
  got = {
    image.tobytes(): label
    for image, label in zip(source.image, source.label.tolist(), strict=True)
  }
  assert got == expected


def test_image_folder_with_a_test_part_of_its_own(run, tmp_path):
  train = _pictures(tmp_path / 'pets' / 'train', ['cat', 'dog'], 4)
  test = _pictures(tmp_path / 'pets' / 'test', ['cat', 'dog'], 2)
  assert run('pets', '--from_images', tmp_path / 'pets')[0] == 0
  source = datasets.load('pets')
  np.testing.assert_array_equal(source.image, np.concatenate([train, test]))
  assert source.label.tolist() == [0] * 4 + [1] * 4 + [0, 0, 1, 1]
  assert source.num_dev == 8


def test_pictures_of_any_size_are_resized_on_request(run, tmp_path):
  _pictures(tmp_path / 'pets', ['cat'], 5, size=8)
  _pictures(tmp_path / 'pets', ['dog'], 5, size=12)
  status, _, err = run('pets', '--from_images', tmp_path / 'pets')
  assert status == 1
  assert '--image_size=64' in err
  status, out, _ = run(
    'pets', '--from_images', tmp_path / 'pets', '--image_size=16'
  )
  assert status == 0
  assert 'of 16 x 16' in out


def test_arrays_become_a_data_set(run, tmp_path):
  generator = np.random.default_rng(0)
  image = generator.integers(0, 256, (20, 6, 6, 1), dtype=np.uint8)
  label = np.arange(20) % 3
  np.save(tmp_path / 'x.npy', image)
  np.save(tmp_path / 'y.npy', label)
  status, out, _ = run(
    'mine',
    '--from_arrays',
    tmp_path / 'x.npy',
    tmp_path / 'y.npy',
    '--test_fraction=0.25',
    '--image_size=12',
    '--crop_padding=2',
  )
  assert status == 0
  assert 'mine: 15 + 5 examples of 12 x 12, 3 classes' in out
  assert datasets.load('mine').transform.crop_padding == 2
  np.savez(
    tmp_path / 'both.npz',
    image=image[:12],
    label=label[:12],
    test_image=image[12:],
    test_label=label[12:],
  )
  assert run('both', '--from_arrays', tmp_path / 'both.npz')[0] == 0
  assert datasets.load('both').label.tolist() == label.tolist()


@pytest.mark.parametrize(
  'image, label, message',
  [
    (np.full((4, 6, 6, 3), 2.0), [0, 1, 0, 1], 'float64.*from 2 to 2.*divide'),
    (np.zeros((4, 6, 6, 3), np.uint8), [0, 1, 0], 'labels .* shape'),
    (np.zeros((4, 6, 6, 3), np.uint8), ['a', 'b', 'a', 'b'], 'counted from 0'),
    (np.zeros((4, 6, 6, 3), np.uint8), [0, -1, 0, 1], r'y\.npy.*position 1 '),
  ],
)
def test_wrong_arrays_leave_nothing(run, tmp_path, image, label, message):
  np.save(tmp_path / 'x.npy', image)
  np.save(tmp_path / 'y.npy', np.array(label))
  status, out, err = run(
    'mine',
    '--from_arrays',
    tmp_path / 'x.npy',
    tmp_path / 'y.npy',
    '--test_fraction=0.5',
  )
  assert (status, out) == (1, '')
  assert re.search(message, err)
  assert not (tmp_path / 'data').exists() or not [
    *(tmp_path / 'data').iterdir()
  ]


def _two_arrays(folder, label):
  shape = (len(label), 6, 6, 3)
  image = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
  np.save(folder / 'x.npy', image)
  np.save(folder / 'y.npy', np.array(label))
  return 'mine', '--from_arrays', folder / 'x.npy', folder / 'y.npy'


@pytest.mark.parametrize('largest', [255, 2**31])
def test_large_labels_need_a_number_of_classes(run, tmp_path, largest):
  command = _two_arrays(tmp_path, [0, 1, 2, largest] * 2)
  status, _, err = run(*command)
  assert status == 1
  assert re.search(
    rf'y\.npy: label {largest} at position 3.*--num_classes', err
  )
  status, _, err = run(*command, '--num_classes=3')
  assert status == 1
  assert re.search(rf'y\.npy: 2 labels .*0\.\.2.*value {largest}', err)


def test_classes_that_never_occur_are_pointed_out(run, tmp_path):
  command = _two_arrays(tmp_path, [0, 1, 3] * 6)
  status, out, _ = run(*command, '--num_classes=300')
  assert status == 0
  assert re.search(
    r'297 of 300 classes never occur.* 2, 4, 5, 6, 7 and 292 more;', out
  )
  assert datasets.load('mine').num_classes == 300
  status, out, _ = run(*command, '--overwrite')
  assert (status, 'among the 14 training examples: 2;' in out) == (0, True)


@pytest.mark.parametrize(
  'option',
  ['image_size=0', 'image_size=-1', 'num_classes=0', 'crop_padding=-2'],
)
def test_options_out_of_range_are_refused(run, tmp_path, option):
  command = _two_arrays(tmp_path, [0, 1] * 6)
  status, _, err = run(*command, f'--{option}')
  name, _, value = option.partition('=')
  assert status == 1
  assert f'--{name} is {value}, expected an integer of at least' in err


def test_two_archives_are_refused(run, tmp_path):
  np.savez(tmp_path / 'a.npz', image=np.zeros(1))
  path = tmp_path / 'a.npz'
  status, _, err = run('mine', '--from_arrays', path, path)
  assert status == 1
  assert 'is an archive' in err and 'give one .npz' in err


def test_constant_pictures_leave_nothing(run, tmp_path):
  command = _two_arrays(tmp_path, [0, 1] * 6)
  np.save(tmp_path / 'x.npy', np.full((12, 6, 6, 3), 51, np.uint8))
  status, _, err = run(*command)
  assert status == 1
  assert 'channel 0 of the training images has mean 0.2' in err
  assert not (tmp_path / 'data' / 'mine').exists()


def test_sets_are_replaced_only_on_request(run, tmp_path):
  _pictures(tmp_path / 'pets', ['cat', 'dog'], 5)
  command = ('pets', '--from_images', tmp_path / 'pets')
  assert run(*command)[0] == 0
  status, _, err = run(*command)
  assert status == 1
  assert '--overwrite' in err
  assert run(*command, '--overwrite')[0] == 0


@pytest.mark.parametrize('name', ['digits', 'My Set', '../x', ''])
def test_names_that_cannot_be_folders_are_refused(run, tmp_path, name):
  _pictures(tmp_path / 'pets', ['cat', 'dog'], 5)
  status, _, err = run(name, '--from_images', tmp_path / 'pets')
  assert status == 1
  assert 'cannot name a data set' in err


def test_broken_and_missing_pictures_are_named(run, tmp_path):
  _pictures(tmp_path / 'pets', ['cat', 'dog'], 5)
  (tmp_path / 'pets' / 'dog' / '02.png').write_bytes(b'no picture')
  status, _, err = run('pets', '--from_images', tmp_path / 'pets')
  assert status == 1
  assert 'dog/02.png cannot be decoded' in err
  for file in (tmp_path / 'pets' / 'dog').iterdir():
    file.unlink()
  assert 'has no images' in run('pets', '--from_images', tmp_path / 'pets')[2]
  with pytest.raises(ValueError, match='class folders'):
    pictures.list_folder(tmp_path / 'pets' / 'cat')


@pytest.mark.parametrize('mode', ['F', 'I', 'I;16'])
def test_pictures_of_more_than_8_bits_are_refused(run, tmp_path, mode):
  _pictures(tmp_path / 'pets', ['cat', 'dog'], 5)
  file = tmp_path / 'pets' / 'dog' / 'deep.tif'
  dtype = {'F': np.float32, 'I': np.int32, 'I;16': np.uint16}[mode]
  Image.fromarray(np.full((8, 8), 300, dtype)).save(file)
  status, _, err = run('pets', '--from_images', tmp_path / 'pets')
  assert status == 1
  assert f'{file} has pixels of more than 8 bits (mode {mode}' in err


@pytest.mark.parametrize('only, other', [('train', 'test'), ('test', 'train')])
def test_one_part_alone_is_refused(run, tmp_path, only, other):
  _pictures(tmp_path / 'pets' / only, ['cat', 'dog'], 5)
  status, _, err = run('pets', '--from_images', tmp_path / 'pets')
  assert status == 1
  assert f'has {only}/<class>/ but no {other}/<class>/' in err
  # A class may have such a name.
  _pictures(tmp_path / 'vehicles', ['car', only], 5)
  assert run('vehicles', '--from_images', tmp_path / 'vehicles')[0] == 0


def test_parts_need_the_same_classes(tmp_path):
  _pictures(tmp_path / 'train', ['cat', 'dog'], 2)
  _pictures(tmp_path / 'test', ['cat', 'owl'], 2)
  with pytest.raises(ValueError, match='owl'):
    pictures.list_folder(tmp_path)


def test_official_set_from_archives_of_the_user(run, tmp_path, monkeypatch):
  standins.write_mnist(tmp_path / 'manual')
  standins.register(monkeypatch, 'mnist', tmp_path / 'manual')
  status, out, _ = run(
    'mnist', '--manual_dir', tmp_path / 'manual', '--any_size'
  )
  assert status == 0
  assert 'mnist: 30 + 10 examples of 32 x 32, 10 classes' in out
  assert 'warning: MNIST is not the official set' in out


def test_copy_that_is_there_is_named_and_replaced_on_request(
  run, tmp_path, monkeypatch
):
  folder = tmp_path / 'data' / 'mnist'
  folder.mkdir(parents=True)
  image = np.random.default_rng(0).integers(0, 256, (4, 28, 28, 1), np.uint8)
  for split in ('train', 'test'):
    np.savez(folder / split, image=image, label=np.arange(4))
  standins.write_mnist(tmp_path / 'manual')
  standins.register(monkeypatch, 'mnist', tmp_path / 'manual')
  command = ('mnist', '--manual_dir', tmp_path / 'manual', '--any_size')
  status, out, _ = run(*command)
  assert status == 0
  assert 'data/mnist is there and is used as it is; --overwrite prep' in out
  assert 'official one with `python -m jaxmu.prepare mnist --overwrite`' in out
  assert 'mnist: 4 + 4 examples' in out
  assert 'mnist: 30 + 10 examples' in run(*command, '--overwrite')[1]
  assert [path.name for path in folder.iterdir()] == ['1.0.0']


@pytest.mark.parametrize(
  'argv, message',
  [
    (['digits', '--overwrite'], '--overwrite would have no effect with digits'),
    (['mnist', '--flip'], '--flip would have no effect with mnist'),
    (
      ['svhn_cropped', '--any_size', '--image_size=8'],
      '--any_size, --image_size would have no effect with svhn_cropped',
    ),
    (
      ['pets', '--from_images=x', '--manual_dir=y'],
      '--manual_dir would have no effect with --from_images',
    ),
    (
      ['mine', '--any_size', '--from_arrays', 'x.npz'],
      '--any_size would have no effect with --from_arrays',
    ),
    (
      ['mine', '--from_tfds=stl10', '--any_size'],
      '--any_size would have no effect with --from_tfds',
    ),
  ],
)
def test_flags_without_effect_are_refused(run, tmp_path, argv, message):
  status, out, err = run(*argv)
  assert (status, out) == (1, '')
  assert message in err
  assert not (tmp_path / 'data').exists()


def test_a_test_part_leaves_nothing_to_cut_off(run, tmp_path):
  _pictures(tmp_path / 'pets' / 'train', ['cat', 'dog'], 4)
  _pictures(tmp_path / 'pets' / 'test', ['cat', 'dog'], 2)
  status, _, err = run(
    'pets', '--from_images', tmp_path / 'pets', '--test_fraction=0.3'
  )
  assert status == 1
  assert '--test_fraction=0.3 would have no effect' in err


def test_set_of_the_benchmark_is_a_source_too(run, tmp_path, monkeypatch):
  standins.write_mnist(tmp_path / 'manual')
  standins.register(monkeypatch, 'mnist', tmp_path / 'manual')
  status, out, _ = run(
    'small',
    '--from_tfds=mnist',
    '--image_size=8',
    '--any_size',
    '--manual_dir',
    tmp_path / 'manual',
  )
  assert status == 0
  assert 'small: 30 + 10 examples of 8 x 8, 10 classes' in out


def test_left_out_faces_are_listed(run, tmp_path):
  folder = tmp_path / 'manual' / 'UTKFace'
  folder.mkdir(parents=True)
  names = [*standins.utkface_names([3, 25, 47, 61, 80]), 'who_0_0_x.jpg']
  for k, name in enumerate(names):
    (folder / name).write_bytes(standins.jpeg(k))
  status, out, _ = run(
    'utkface', '--manual_dir', tmp_path / 'manual', '--any_size'
  )
  assert status == 0
  assert 'left out 1 files with malformed names:\n  who_0_0_x.jpg' in out


def test_digits_need_nothing(run):
  status, out, _ = run('digits')
  assert status == 0
  assert 'digits: 1,437 + 360 examples' in out


def test_unknown_name_is_an_error(run):
  status, _, err = run('no_such_set')
  assert status == 1
  assert "'no_such_set' is not a data set of tensorflow-datasets" in err


def test_tfds_set_is_resized_and_divided(run, tmp_path):
  stock.prepare(tmp_path, parts=('train',), shape=(None, None, 3))
  status, out, err = run(
    'small', '--from_tfds=stock', '--image_size=4', '--test_fraction=0.5'
  )
  assert (status, err) == (0, '')
  assert 'small: 20 + 20 examples of 4 x 4, 40 classes' in out
