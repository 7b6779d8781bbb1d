"""The original archives of the benchmark's sets: addresses and checksums."""

import dataclasses
import socket
import urllib.parse
import urllib.request
from collections.abc import Iterable

_MNIST_URL = 'https://storage.googleapis.com/cvdf-datasets/mnist/'
_FASHION_URL = 'http://fashion-mnist.s3-website.eu-central-1.amazonaws.com/'
_CIFAR_URL = 'https://www.cs.toronto.edu/~kriz/'


@dataclasses.dataclass(frozen=True)
class Remote:
  """An original archive: its address, size in bytes and sha256."""

  url: str
  size: int
  sha256: str

  @property
  def filename(self) -> str:
    return self.url.rpartition('/')[2]


REMOTES: dict[str, tuple[Remote, ...]] = {
  'mnist': (
    Remote(
      _MNIST_URL + 'train-images-idx3-ubyte.gz',
      9_912_422,
      '440fcabf73cc546fa21475e81ea370265605f56be210a4024d2ca8f203523609',
    ),
    Remote(
      _MNIST_URL + 'train-labels-idx1-ubyte.gz',
      28_881,
      '3552534a0a558bbed6aed32b30c495cca23d567ec52cac8be1a0730e8010255c',
    ),
    Remote(
      _MNIST_URL + 't10k-images-idx3-ubyte.gz',
      1_648_877,
      '8d422c7b0a1c1c79245a5bcf07fe86e33eeafee792b84584aec276f5a2dbc4e6',
    ),
    Remote(
      _MNIST_URL + 't10k-labels-idx1-ubyte.gz',
      4_542,
      'f7ae60f92e00ec6debd23a6088c31dbd2371eca3ffa0defaefb259924204aec6',
    ),
  ),
  'fashion_mnist': (
    Remote(
      _FASHION_URL + 'train-images-idx3-ubyte.gz',
      26_421_880,
      '3aede38d61863908ad78613f6a32ed271626dd12800ba2636569512369268a84',
    ),
    Remote(
      _FASHION_URL + 'train-labels-idx1-ubyte.gz',
      29_515,
      'a04f17134ac03560a47e3764e11b92fc97de4d1bfaf8ba1a3aa29af54cc90845',
    ),
    Remote(
      _FASHION_URL + 't10k-images-idx3-ubyte.gz',
      4_422_102,
      '346e55b948d973a97e58d2351dde16a484bd415d4595297633bb08f03db6a073',
    ),
    Remote(
      _FASHION_URL + 't10k-labels-idx1-ubyte.gz',
      5_148,
      '67da17c76eaffca5446c3361aaab5c3cd6d1c2608764d35dfb1850b086bf8dd5',
    ),
  ),
  'cifar10': (
    Remote(
      _CIFAR_URL + 'cifar-10-binary.tar.gz',
      170_052_171,
      'c4a38c50a1bc5f3a1c5537f2155ab9d68f9f25eb1ed8d9ddda3db29a59bca1dd',
    ),
  ),
  'cifar100': (
    Remote(
      _CIFAR_URL + 'cifar-100-binary.tar.gz',
      168_513_733,
      '58a81ae192c23a4be8b1804d68e518ed807d710a4eb253b1f2a199162a40d8ec',
    ),
  ),
}

# Accepted from the user's folder in place of the binary archive: name and md5
# (the publisher gives no other checksum).
PYTHON_ARCHIVES: dict[str, tuple[str, str]] = {
  'cifar10': ('cifar-10-python.tar.gz', 'c58f30108f718f92721af3b95e74349a'),
  'cifar100': ('cifar-100-python.tar.gz', 'eb9058c3a382ffc7106e4002c42a8d85'),
}


def check_reachable(urls: Iterable[str], *, timeout: float = 10.0) -> None:
  """Raise OSError at once where no host of these addresses can be reached.

  tfds would try again for minutes. Behind a proxy, or of an address that names
  no host, nothing can be said, so nothing is checked.
  """
  parts = [urllib.parse.urlsplit(url) for url in urls]
  ports = {'http': 80, 'https': 443, 'ftp': 21}
  hosts = {(p.hostname, p.port or ports.get(p.scheme)) for p in parts}
  if urllib.request.getproxies() or not hosts:
    return
  errors = []
  for host, port in sorted(hosts, key=str):
    if not host or not port:
      return
    try:
      socket.create_connection((host, port), timeout).close()
    except OSError as error:
      errors.append(f'{host}: {error}')
    else:
      return
  raise OSError('; '.join(errors))
