"""Prepare a data set for jaxmu.

  python -m jaxmu.prepare cifar10                      download and prepare
  python -m jaxmu.prepare cifar10 --manual_dir=DIR     from archives in DIR
  python -m jaxmu.prepare svhn_cropped                 any set of tfds
  python -m jaxmu.prepare cats --from_images=DIR       DIR/<class>/<image>.png
  python -m jaxmu.prepare birds --from_arrays x.npy y.npy
  python -m jaxmu.prepare small --from_tfds=stl10 --image_size=32

The set is then loaded once, which checks it and fills the cache, and a command
for a job on it is printed.
"""

import argparse
import pathlib
import shlex
import warnings
from collections.abc import Sequence

from jaxmu import cli, files, terms
from jaxmu.data import custom, datasets, formats, pictures
from jaxmu.data.catalog import CATALOG, scale_of

_OFFICIAL = tuple(sorted(set(CATALOG) - {'digits'}))
_CUSTOM = {'image_size', 'test_fraction', 'flip', 'crop_padding', 'overwrite'}
# What a flag is called in `formats.LIMITS`.
_LIMITED = {
  'image_size': 'size',
  'num_classes': 'num_classes',
  'crop_padding': 'crop_padding',
}


def main(argv: Sequence[str] | None = None) -> None:
  """Run the command.

  Raises:
    SystemExit: with a line that says what is wrong and what to do.
  """
  args = _parser().parse_args(argv)
  with cli.one_line_errors():
    data_dir = datasets.find_data_dir(args.data_dir)
    _expand_paths(args)
    _check_flags(args)
    if _is_custom(args):
      _check_custom(args, data_dir)
      _prepare_custom(args, data_dir)
    elif args.name != 'digits':  # which comes with scikit-learn
      _prepare_named(args, args.name, data_dir, overwrite=args.overwrite)
    warnings.simplefilter('always')
    source = datasets.load(args.name, data_dir=args.data_dir)
    absent = formats.absent_classes(
      source.label[: source.num_dev], num_classes=source.num_classes
    )
    if absent:
      cli.warn(absent)
  cache_dir = files.cache_dir()
  print(f'{source!r}\ndata set: {data_dir}\ncache: {cache_dir}')
  given = args.data_dir and args.name != 'digits'
  folder = data_dir if given else None
  print(f'next: {next_command(source, folder)}')


def next_command(
  source: datasets.Source, folder: pathlib.Path | None = None
) -> str:
  """Return a command that runs a job on a data set.

  Args:
    source: the data set.
    folder: the folder of data sets, if it is not the default one.
  """
  name = source.name
  words = [f'--config=msg_resnet:{scale_of(name, source.num_dev)}']
  if name not in CATALOG:
    words.append(f'--config.data.name={name}')
  if folder is not None:
    words.append(f'--config.data.folder={folder}')
  return shlex.join(['python', '-m', 'jaxmu.main', *words])


def _is_custom(args: argparse.Namespace) -> bool:
  return bool(args.from_images or args.from_arrays or args.from_tfds)


def _expand_paths(args: argparse.Namespace) -> None:
  """Expand `~` and `$NAME` in every path that was given."""
  for flag in ('manual_dir', 'from_images'):
    if getattr(args, flag) is not None:
      setattr(args, flag, files.path(getattr(args, flag)))
  if args.from_arrays:
    args.from_arrays = [files.path(path) for path in args.from_arrays]


def _check_flags(args: argparse.Namespace) -> None:
  """Check the ranges of flags, and that every flag has an effect."""
  for flag, key in _LIMITED.items():
    value = getattr(args, flag)
    if value is not None:
      formats.check_number(key, value, origin=f'--{flag}')
  if args.num_classes and not args.from_arrays:
    raise ValueError(
      '--num_classes applies to --from_arrays only; other sources name their '
      'classes'
    )
  if args.from_tfds:
    form, known = '--from_tfds', _CUSTOM | _fetch_flags(args.from_tfds)
  elif _is_custom(args):
    form = '--from_images' if args.from_images else '--from_arrays'
    known = _CUSTOM
  else:
    form, known = args.name, {'overwrite'} | _fetch_flags(args.name)
    if args.name == 'digits':
      known = set()
  optional = _CUSTOM | {'manual_dir', 'any_size'}
  without_effect = sorted(
    f'--{flag}'
    for flag in optional - known
    if getattr(args, flag) not in (None, False)
  )
  if without_effect:
    raise ValueError(
      f'{", ".join(without_effect)} would have no effect with {form}: leave '
      f'{"it" if len(without_effect) == 1 else "them"} out'
    )


def _fetch_flags(name: str) -> set[str]:
  return {'manual_dir', 'any_size'} if name in _OFFICIAL else {'manual_dir'}


def _check_custom(args: argparse.Namespace, data_dir: pathlib.Path) -> None:
  """Check everything that can be checked before any image is read."""
  custom.check_name(args.name)
  custom.check_free(args.name, data_dir=data_dir, overwrite=args.overwrite)
  if args.test_fraction is not None:
    custom.check_fraction(args.test_fraction)


def _prepare_named(
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
    again = '; --overwrite prepares it again' if name in _OFFICIAL else ''
    print(f'{folder} exists and is used unchanged{again}')
    return
  # tfds is slow to import and not needed for custom data.
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
    count = terms.count(len(skipped), 'file')
    print(f'left out {count} with malformed names:')
    print('\n'.join(f'  {file}' for file in skipped))


def _prepare_custom(args: argparse.Namespace, data_dir: pathlib.Path) -> None:
  """Make a plain data set of images, arrays or a set of tfds."""
  size = args.image_size
  meta = {'flip': args.flip, 'crop_padding': args.crop_padding or 0}
  if args.from_images:
    data = _read_pictures(args)
  elif args.from_arrays:
    data = custom.read_arrays(args.from_arrays)
    custom.count_classes(
      data, num_classes=args.num_classes, origin=str(args.from_arrays[-1])
    )
    meta |= {'size': size} if size else {}
    meta |= {'num_classes': args.num_classes} if args.num_classes else {}
  else:
    folder = data_dir / args.from_tfds
    # --overwrite applies to the new set, not to its source.
    _prepare_named(args, args.from_tfds, data_dir, overwrite=False)
    opened = formats.open_prepared(
      args.from_tfds,
      formats.newest_prepared(folder),
      size=size,
      need_test=False,
    )
    data = custom.collect(opened)
    meta['num_classes'] = opened.num_classes
  custom.write_plain(
    args.name,
    custom.divide(data, test_fraction=args.test_fraction),
    data_dir=data_dir,
    meta=meta,
    overwrite=args.overwrite,
  )


def _read_pictures(args: argparse.Namespace) -> custom.Labelled:
  listing = pictures.list_folder(args.from_images)
  if len(listing.parts) == 2 and args.test_fraction is not None:
    raise ValueError(
      f'--test_fraction={args.test_fraction} would have no effect: '
      f'{args.from_images} has a folder test; leave the flag out'
    )
  if listing.left_out:
    cli.warn(listing.left_out_line())
  count = sum(map(len, listing.parts))
  print(f'reading {terms.count(count, "picture")}', flush=True)
  blocks = pictures.read(listing, size=args.image_size)
  return custom.Labelled(
    train=blocks[0],
    test=blocks[1] if len(blocks) == 2 else None,
    class_names=listing.class_names,
  )


def _parser() -> cli.Parser:
  parser = cli.Parser('jaxmu.prepare', __doc__ or '')
  add = parser.add_argument
  add('name', help=f'{", ".join(sorted(CATALOG))}, a set of tfds, or a new one')
  add('--data_dir', help='folder of data sets (default $JAXMU_DATA_DIR)')
  add('--manual_dir', metavar='DIR', help='folder that holds archives')
  add('--any_size', action='store_true', help='accept any number of images')
  form = parser.add_mutually_exclusive_group()
  form.add_argument(
    '--from_images', metavar='DIR', help='folder of pictures by class'
  )
  form.add_argument(
    '--from_arrays', nargs='+', metavar='FILE', help='one .npz, or two .npy'
  )
  form.add_argument('--from_tfds', metavar='NAME', help='a set of tfds')
  add('--image_size', type=cli.whole, help='resize to this height and width')
  add('--num_classes', type=cli.whole, help='default the largest label + 1')
  add(
    '--test_fraction',
    type=cli.real,
    help='share to split off if there is no test part (default 0.2)',
  )
  add(
    '--flip',
    action='store_true',
    help='mirror images at random in training from scratch',
  )
  add(
    '--crop_padding',
    type=cli.whole,
    help='pad images by this many pixels and crop at random, likewise',
  )
  add('--overwrite', action='store_true', help='replace a set of this name')
  return parser


if __name__ == '__main__':
  main()
