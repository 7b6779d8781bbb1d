"""The command that puts data sets in place, and the forms it accepts."""

import re
import shlex
import threading

import numpy as np
import pytest
from PIL import Image

from jaxmu import prepare
from jaxmu.cli import arguments
from jaxmu.data import custom, datasets, pictures
from jaxmu.data.catalog import CATALOG
from jaxmu.study import job as job_lib
from jaxmu.study import planner, settings
from jaxmu.study import run as run_lib
from tests.data import standins, stock


@pytest.fixture
def run(tmp_path, monkeypatch, capsys):
  """Run the command; return its status, output and errors."""
  monkeypatch.setenv('JAXMU_CACHE_DIR', str(tmp_path / 'cache'))
  monkeypatch.setenv('JAXMU_DATA_DIR', str(tmp_path / 'data'))

  def call(*argv):
    capsys.readouterr()
    status, line = 0, ''
    try:
      prepare.main([str(arg) for arg in argv])
    except SystemExit as end:
      status, line = 1, f'{end.code}\n'
      assert len(line.splitlines()) == 1
    captured = capsys.readouterr()
    if status:
      return status, captured.out, captured.err + line
    lines = captured.err.splitlines(keepends=True)
    warned = [one for one in lines if one.startswith('Warning: ')]
    return 0, captured.out + ''.join(warned), ''

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


def test_a_text_file_is_refused_with_the_way_to_read_it(run, tmp_path):
  for name in ('x.csv', 'y.csv'):
    (tmp_path / name).write_text('label,p0\n0,1\n')
  for paths in (['x.csv'], ['x.csv', 'y.csv']):
    status, _, err = run(
      'mine', '--from_arrays', *(tmp_path / name for name in paths)
    )
    assert status == 1 and 'numpy.loadtxt(FILE' in err and 'numpy.save' in err


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


def test_options_out_of_range_are_refused(run, tmp_path):
  command = _two_arrays(tmp_path, [0, 1] * 6)
  accepted = []
  for option in (
    'image_size=0',
    'image_size=-1',
    'num_classes=0',
    'crop_padding=-2',
  ):
    status, _, err = run(*command, f'--{option}')
    name, _, value = option.partition('=')
    message = f'--{name} is {value}, expected an integer of at least'
    if status != 1 or message not in err:
      accepted.append(option)
  assert not accepted


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


def test_names_are_refused_before_anything_is_read(run, tmp_path, monkeypatch):
  """Names that cannot be folders, and names of official sets."""
  for module, name in ((pictures, 'read'), (custom, 'read_arrays')):
    monkeypatch.setattr(module, name, lambda *args, **kwargs: 1 / 0)
  _pictures(tmp_path / 'pets', ['cat', 'dog'], 5)
  wrong = ['My Set', '../x', '', 'x' * 300, 'a/b', 'a\nb', *CATALOG]
  forms = [
    ('--from_images', tmp_path / 'pets'),
    ('--from_arrays', tmp_path / 'x.npz'),
    ('--from_tfds', 'stl10'),
  ]
  accepted = []
  for name in wrong:
    for form in forms:
      status, out, err = run(name, *form)
      one_line = err.count('\n') == 1 and len(err) < 400
      remedy = f"'my_{name}'" if name in CATALOG else 'use small letters'
      if (status, out) != (1, '') or not one_line or remedy not in err:
        accepted.append((name, form[0]))
  assert not accepted
  assert not (tmp_path / 'data').exists()


def test_numbers_and_taken_names_are_refused_before_anything_is_read(
  run, tmp_path, monkeypatch
):
  _pictures(tmp_path / 'pets', ['cat', 'dog'], 5)
  assert run('pets', '--from_images', tmp_path / 'pets')[0] == 0
  monkeypatch.setattr(pictures, 'read', lambda *args, **kwargs: 1 / 0)
  for option, message in (
    ('--flip', 'exists: choose another name, or replace it with --overwrite'),
    ('--test_fraction=1.5', 'exists'),
    ('--image_size=99999', '--image_size is 99999'),
    ('--crop_padding=99999', '--crop_padding is 99999'),
  ):
    status, _, err = run('pets', '--from_images', tmp_path / 'pets', option)
    assert (status, message in err) == (1, True), option
  status, _, err = run(
    'other', '--from_images', tmp_path / 'pets', '--test_fraction=1.5'
  )
  assert (status, 'test_fraction is 1.5' in err) == (1, True)


def test_crops_larger_than_the_images_leave_nothing(run, tmp_path):
  command = _two_arrays(tmp_path, [0, 1] * 6)
  status, _, err = run(*command, '--crop_padding=6')
  message = 'crop_padding is 6 for images of 6 x 6: '
  assert (status, message in err) == (1, True)
  assert not (tmp_path / 'data' / 'mine').exists()
  assert run(*command, '--crop_padding=5')[0] == 0


def test_left_out_files_are_said_in_one_line(run, tmp_path):
  for part in ('train', 'test', 'validation'):
    _pictures(tmp_path / 'pets' / part, ['cat', 'dog'], 3)
  status, out, _ = run('pets', '--from_images', tmp_path / 'pets')
  assert status == 0
  [line] = [line for line in out.split('\n') if 'left out' in line]
  assert line.endswith('pets left out: validation/ (6)')
  assert 'pets: 6 + 6 examples' in out


def test_copies_are_pointed_out(run, tmp_path):
  image = np.random.default_rng(0).integers(0, 256, (8, 6, 6, 3), np.uint8)
  image[3], image[7], image[6] = image[0], image[1], image[2]
  np.savez(
    tmp_path / 'x.npz',
    image=image[:6],
    label=[0, 1, 0, 1, 0, 1],
    test_image=image[6:],
    test_label=[0, 1],
  )
  status, out, _ = run('mine', '--from_arrays', tmp_path / 'x.npz')
  assert status == 0
  assert (
    '3 exact copies of images (first: examples 0 and 3): 1 in the same' in out
  )
  assert '2 of the development part in the test part, 1 with another' in out


def test_one_of_several_writers_of_a_name_wins_and_the_others_know(tmp_path):
  image = np.random.default_rng(0).integers(0, 256, (8, 6, 6, 3), np.uint8)
  data = custom.Labelled(
    train=(image[:6], np.arange(6) % 2), test=(image[6:], np.arange(2))
  )
  results = []

  def write():
    try:
      custom.write_plain('mine', data, data_dir=tmp_path, meta={})
      results.append('written')
    except ValueError as error:
      results.append('exists' if 'exists' in str(error) else str(error))

  threads = [threading.Thread(target=write) for _ in range(4)]
  for thread in threads:
    thread.start()
  for thread in threads:
    thread.join()
  assert sorted(results) == ['exists'] * 3 + ['written']
  assert [path.name for path in tmp_path.iterdir()] == ['mine']


def test_the_next_command_is_printed(run, tmp_path):
  _pictures(tmp_path / 'pets', ['cat', 'dog'], 40)
  data = tmp_path / 'my data'
  _, out, _ = run(
    'pets', f'--from_images={tmp_path}/pets', f'--data_dir={data}'
  )
  (line,) = [one for one in out.splitlines() if one.startswith('next: ')]
  words = shlex.split(line.removeprefix('next: '))
  assert words[:3] == ['python', '-m', 'jaxmu.main']
  chosen = settings.from_config(arguments.read(words[3:]).config)
  assert chosen.data.folder == str(data)
  assert chosen.workdir == 'workdir/msg_resnet_pets'
  job = job_lib.open_job(chosen)
  assert (job.source.name, job.source.num_dev) == ('pets', 64)
  run_lib.check_job(job, planner.plan_steps(job))
  assert prepare.next_command(datasets.load('digits')).endswith(
    '--config=msg_resnet:digits'
  )


def test_home_is_expanded_in_flags(run, tmp_path, monkeypatch):
  monkeypatch.setenv('HOME', str(tmp_path))
  _pictures(tmp_path / 'pets', ['cat', 'dog'], 5)
  assert run('pets', '--from_images=~/pets', '--data_dir=~/data')[0] == 0
  assert (tmp_path / 'data' / 'pets' / 'train.npz').exists()
  np.save(tmp_path / 'x.npy', np.arange(8 * 36).reshape(8, 6, 6) % 255 / 255)
  np.save(tmp_path / 'y.npy', np.arange(8) % 2)
  assert run('mine', '--from_arrays', '~/x.npy', '$HOME/y.npy')[0] == 0
  status, _, err = run('mnist', '--manual_dir=~/absent')
  assert (status, f'{tmp_path}/absent is not a folder' in err) == (1, True)


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


def test_pictures_of_more_than_8_bits_are_refused(run, tmp_path):
  _pictures(tmp_path / 'pets', ['cat', 'dog'], 5)
  file = tmp_path / 'pets' / 'dog' / 'deep.tif'
  dtypes = {'F': np.float32, 'I': np.int32, 'I;16': np.uint16}
  for mode, dtype in dtypes.items():
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
  assert 'Warning: MNIST is not the official set' in out


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
  assert 'data/mnist exists and is used unchanged; --overwrite prep' in out
  assert 'official one with `python -m jaxmu.prepare mnist --overwrite`' in out
  assert 'mnist: 4 + 4 examples' in out
  assert 'mnist: 30 + 10 examples' in run(*command, '--overwrite')[1]
  assert [path.name for path in folder.iterdir()] == ['1.0.0']


def test_flags_without_effect_are_refused(run, tmp_path):
  cases = [
    ('digits --overwrite', '--overwrite', 'digits'),
    ('mnist --flip', '--flip', 'mnist'),
    (
      'svhn_cropped --any_size --image_size=8',
      '--any_size, --image_size',
      'svhn_cropped',
    ),
    ('pets --from_images=x --manual_dir=y', '--manual_dir', '--from_images'),
    ('mine --any_size --from_arrays x.npz', '--any_size', '--from_arrays'),
    ('mine --from_tfds=stl10 --any_size', '--any_size', '--from_tfds'),
  ]
  accepted = []
  for command, flags, form in cases:
    status, out, err = run(*command.split())
    message = f'{flags} would have no effect with {form}'
    if (status, out) != (1, '') or message not in err:
      accepted.append(command)
  assert not accepted
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
  assert 'left out 1 file with malformed names:\n  who_0_0_x.jpg' in out


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
