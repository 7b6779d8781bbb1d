"""Put a data set where jaxmu finds it.

  python -m jaxmu.prepare cifar10                      download and prepare
  python -m jaxmu.prepare cifar10 --manual_dir=DIR     from archives in DIR
  python -m jaxmu.prepare svhn_cropped                 any set of tfds
  python -m jaxmu.prepare cats --from_images=DIR       DIR/<class>/<image>.png
  python -m jaxmu.prepare mine --from_arrays x.npy y.npy
  python -m jaxmu.prepare small --from_tfds=stl10 --image_size=32

Afterwards the set is loaded once, which checks it and fills the cache.
"""

import argparse
import pathlib
import sys
import warnings

from jaxmu.data import custom, datasets, formats
from jaxmu.data.catalog import CATALOG

_OFFICIAL = tuple(sorted(set(CATALOG) - {'digits'}))
_OWN = {'image_size', 'test_fraction', 'flip', 'crop_padding', 'overwrite'}


def main(argv: list[str] | None = None) -> int:
  """Run the command; return its exit status."""
  args = _parser().parse_args(argv)
  data_dir = datasets.find_data_dir(args.data_dir)
  try:
    _check(args)
    _check_flags(args)
    if args.from_images or args.from_arrays or args.from_tfds:
      _own(args, data_dir)
    elif args.name != 'digits':  # which comes with scikit-learn
      _named(args, args.name, data_dir, overwrite=args.overwrite)
    with warnings.catch_warnings(record=True) as caught:
      warnings.simplefilter('always')
      source = datasets.load(args.name, data_dir=data_dir)
  except (ValueError, OSError) as error:
    print(f'error: {error}', file=sys.stderr)
    return 1
  for warning in caught:
    print(f'warning: {warning.message}')
  absent = formats.absent_classes(
    source.label[: source.num_dev], num_classes=source.num_classes
  )
  if absent:
    print(f'warning: {absent}')
  num_test = len(source.label) - source.num_dev
  print(
    f'{source.name}: {source.num_dev} + {num_test} examples of '
    f'{source.image.shape[1]} x {source.image.shape[2]}, '
    f'{source.num_classes} classes, fingerprint {source.fingerprint[:16]}\n'
    f'data set: {data_dir}\ncache: {datasets.default_cache_dir()}'
  )
  return 0


def _check(args: argparse.Namespace) -> None:
  """Raise ValueError for options out of range, before anything is read."""
  for name, least in (
    ('image_size', 1),
    ('num_classes', 1),
    ('crop_padding', 0),
  ):
    value = getattr(args, name)
    if value is not None and value < least:
      raise ValueError(f'--{name} is {value}: give at least {least}')
  if args.num_classes and not args.from_arrays:
    raise ValueError(
      '--num_classes goes with --from_arrays: elsewhere the classes are known'
    )


def _check_flags(args: argparse.Namespace) -> None:
  """Refuse flags that would have no effect."""
  if args.from_tfds:
    form, known = '--from_tfds', _OWN | _fetch_flags(args.from_tfds)
  elif args.from_images or args.from_arrays:
    form = '--from_images' if args.from_images else '--from_arrays'
    known = _OWN
  else:
    form, known = args.name, {'overwrite'} | _fetch_flags(args.name)
    if args.name == 'digits':
      known = set()
  optional = _OWN | {'manual_dir', 'any_size'}
  idle = sorted(
    f'--{flag}'
    for flag in optional - known
    if getattr(args, flag) not in (None, False)
  )
  if idle:
    raise ValueError(
      f'{", ".join(idle)} would have no effect with {form}: leave it out'
    )


def _fetch_flags(name: str) -> set[str]:
  return {'manual_dir', 'any_size'} if name in _OFFICIAL else {'manual_dir'}


def _named(
  args: argparse.Namespace,
  name: str,
  data_dir: pathlib.Path,
  *,
  overwrite: bool,
) -> None:
  """Prepare a set of the benchmark, or another one of tfds."""
  folder = data_dir / name
  if not overwrite and (
    formats.is_plain(folder) or formats.find_prepared(folder)
  ):
    anew = '; --overwrite prepares it anew' if name in _OFFICIAL else ''
    print(f'{folder} is there and is used as it is{anew}')
    return
  # tfds is slow to import and not needed for a user's own data.
  from jaxmu.data import official

  if name not in _OFFICIAL:
    official.prepare_other(
      name, data_dir=data_dir, manual_dir=args.manual_dir, overwrite=overwrite
    )
    return
  _, skipped = official.prepare(
    name,
    data_dir=data_dir,
    manual_dir=args.manual_dir,
    any_size=args.any_size,
    overwrite=overwrite,
  )
  if skipped:
    print(f'left out {len(skipped)} files with malformed names:')
    print('\n'.join(f'  {file}' for file in skipped))


def _own(args: argparse.Namespace, data_dir: pathlib.Path) -> None:
  """Make a plain data set of the user's images, arrays or tfds set."""
  size = args.image_size
  meta = {'flip': args.flip, 'crop_padding': args.crop_padding or 0}
  if args.from_images:
    data = custom.read_image_folder(args.from_images, size=size)
  elif args.from_arrays:
    classes = args.num_classes
    data = custom.read_arrays(args.from_arrays, num_classes=classes)
    meta |= {'size': size} if size else {}
    meta |= {'num_classes': classes} if classes else {}
  else:
    folder = data_dir / args.from_tfds
    # --overwrite means the new set here, not the one it is made of.
    _named(args, args.from_tfds, data_dir, overwrite=False)
    opened = formats.open_prepared(
      args.from_tfds,
      formats.newest_prepared(folder),
      size=size,
      need_test=False,
    )
    data = custom.collect(opened)
    meta['num_classes'] = opened.num_classes
  if data.test is not None and args.test_fraction is not None:
    raise ValueError(
      f'--test_fraction={args.test_fraction} would have no effect: the set has '
      'a test part of its own; leave the flag out'
    )
  fraction = 0.2 if args.test_fraction is None else args.test_fraction
  data = custom.divide(data, test_fraction=fraction)
  custom.write_plain(
    args.name, data, data_dir=data_dir, meta=meta, overwrite=args.overwrite
  )


def _parser() -> argparse.ArgumentParser:
  parser = argparse.ArgumentParser(
    prog='python -m jaxmu.prepare',
    description=__doc__,
    formatter_class=argparse.RawDescriptionHelpFormatter,
  )
  add = parser.add_argument
  add('name', help=f'{", ".join(sorted(CATALOG))}, a set of tfds, or your own')
  add('--data_dir', help='folder of data sets (default $JAXMU_DATA_DIR)')
  add('--manual_dir', type=pathlib.Path, help='folder that holds archives')
  add('--any_size', action='store_true', help='accept an incomplete archive')
  form = parser.add_mutually_exclusive_group()
  form.add_argument('--from_images', type=pathlib.Path, metavar='DIR')
  form.add_argument(
    '--from_arrays', type=pathlib.Path, nargs='+', metavar='FILE'
  )
  form.add_argument('--from_tfds', metavar='NAME')
  add('--image_size', type=int, help='resize to this height and width')
  add('--num_classes', type=int, help='of arrays (default largest label + 1)')
  add(
    '--test_fraction', type=float, help='if it has no test part (default 0.2)'
  )
  add('--flip', action='store_true', help='mirror while training from scratch')
  add('--crop_padding', type=int, help='random crops, in pixels')
  add('--overwrite', action='store_true', help='replace a set of this name')
  return parser


if __name__ == '__main__':
  sys.exit(main())
