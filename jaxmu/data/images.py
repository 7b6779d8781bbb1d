"""Bring images of any set to the form of the model input: u8[N, S, S, 3]."""

import numpy as np
from PIL import Image


def to_model_input(image: np.ndarray, *, size: int) -> np.ndarray:
  """Resize to a square and repeat a single grey channel three times.

  The resize is Pillow's bilinear one on the 8-bit image, channel by channel
  for grey images and at once for colour images, as the benchmark does.

  Args:
    image: u8[N, H, W, C] with C = 1 or 3.
    size: height and width of the result, in pixels.

  Returns:
    u8[N, size, size, 3].

  Raises:
    ValueError: the array is not of this form.
  """
  check_images(image)
  if image.shape[1:3] != (size, size):
    image = np.stack([_resize(one, size) for one in image])
  if image.shape[-1] == 1:
    image = np.repeat(image, 3, axis=-1)
  return image


def check_images(image: np.ndarray) -> None:
  """Raise ValueError unless `image` is u8[N, H, W, 1 or 3] with N > 0."""
  if image.dtype != np.uint8:
    raise ValueError(
      f'images have dtype {image.dtype}, expected uint8 (bytes 0..255): '
      'convert floats in [0, 1] with np.round(255 * image).astype(np.uint8)'
    )
  if image.ndim != 4 or image.shape[-1] not in (1, 3):
    raise ValueError(
      f'images have shape {image.shape}, expected [N, height, width, channels] '
      'with 1 (grey) or 3 (RGB) channels'
    )
  if not all(image.shape):
    raise ValueError(f'images have shape {image.shape}: the set is empty')


def _resize(image: np.ndarray, size: int) -> np.ndarray:
  pixels = image[..., 0] if image.shape[-1] == 1 else image
  resized = Image.fromarray(pixels).resize(
    (size, size), Image.Resampling.BILINEAR
  )
  return np.asarray(resized).reshape(size, size, image.shape[-1])


def channel_moments(
  image: np.ndarray,
) -> tuple[tuple[float, ...], tuple[float, ...]]:
  """Return mean and standard deviation per channel of u8[N, H, W, C] / 255.

  Exact (from integer histograms) and rounded to four decimals, the precision
  at which such constants are published.

  Raises:
    ValueError: a channel hardly varies: nothing can be divided by its
      deviation.
  """
  moments = []
  for channel in range(image.shape[-1]):
    counts = np.zeros(256, np.int64)
    for start in range(0, len(image), 4096):
      block = image[start : start + 4096, ..., channel]
      counts += np.bincount(block.reshape(-1), minlength=256)
    value = np.arange(256) / 255
    mean = counts @ value / counts.sum()
    std = np.sqrt(counts @ (value - mean) ** 2 / counts.sum())
    moments.append((round(float(mean), 4), round(float(std), 4)))
    if not moments[-1][1]:
      raise ValueError(
        f'channel {channel} of the training images has mean '
        f'{moments[-1][0]} and standard deviation 0.0 (of values in [0, 1]): '
        'it tells nothing and cannot be normalised; drop it (a single grey '
        'channel is repeated three times) or add images in which it varies'
      )
  mean, std = zip(*moments, strict=True)
  return mean, std
