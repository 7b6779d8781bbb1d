"""The 1,797 handwritten 8 x 8 digits that come inside scikit-learn.

Real data that needs no download. The images stand in scikit-learn in the order
of their writers, so they are shuffled once by a fixed permutation; the first
1,437 form the development part, the other 360 the test set.
"""

import numpy as np

ORDER_SEED = 123


def read() -> tuple[np.ndarray, np.ndarray]:
  """Return images u8[1797, 8, 8, 1] and labels i32[1797] in our fixed order.

  The order is `np.random.default_rng(123).permutation(1797)`. Ink values 0..16
  become the bytes 0..255, rounded to nearest.
  """
  from sklearn import datasets  # slow to import, needed by this set alone

  ink, label = datasets.load_digits(return_X_y=True)
  order = np.random.default_rng(ORDER_SEED).permutation(len(label))
  image = np.round(np.reshape(ink, (-1, 8, 8, 1)) * (255 / 16))
  return image[order].astype(np.uint8), np.asarray(label, np.int32)[order]
