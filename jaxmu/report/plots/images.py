"""Contact sheets: the images behind the numbers."""

import math
from collections.abc import Sequence

import numpy as np
from matplotlib import figure
from numpy.typing import ArrayLike

from jaxmu.report.plots import style


@style.styled
def contact_sheet(
  images: ArrayLike,
  captions: Sequence[str],
  *,
  columns: int = 8,
  title: str = 'The most exposed forgotten images',
) -> figure.Figure:
  """Draw images in rows with a caption under each.

  Args:
    images: u8[K, H, W, C] or u8[K, H, W]; C is 1 or 3.
    captions: K short texts, such as 'label 3\\n0.91 → 0.55'.
    columns: images per row.
    title: headline.

  Returns:
    The figure.

  Raises:
    ValueError: the images are not bytes of that shape, or the captions not K.
  """
  images = np.asarray(images)
  if images.ndim == 3:
    images = images[..., None]
  if images.dtype != np.uint8 or images.ndim != 4:
    raise ValueError(
      f'images are {images.dtype}{list(images.shape)}; expected uint8 of shape '
      '[images, height, width, channels]'
    )
  if len(images) != len(captions):
    raise ValueError(f'{len(images)} images but {len(captions)} captions')
  columns = max(1, min(columns, len(images)))
  rows = max(1, math.ceil(len(images) / columns))
  lines = max((caption.count('\n') + 1 for caption in captions), default=1)
  height = rows * (1.0 + 0.15 * lines) + 0.5
  fig = style.canvas(max(columns * 1.1, 4.8), height)
  panels = fig.subplots(rows, columns, squeeze=False)
  for panel in panels.flat:
    panel.set(xticks=[], yticks=[])
    panel.spines[:].set_visible(False)
  for panel, image, caption in zip(panels.flat, images, captions, strict=False):
    grey = image.shape[-1] == 1
    panel.imshow(
      image[..., 0] if grey else image,
      cmap='gray' if grey else None,
      vmin=0,
      vmax=255,
      interpolation='nearest',
    )
    panel.set_xlabel(style.escape(caption), fontsize=7, labelpad=2)
  style.title(fig, title)
  return fig
