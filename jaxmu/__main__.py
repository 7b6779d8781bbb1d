"""`python -m jaxmu` is the command `jaxmu`."""

import sys

from jaxmu import cli

sys.exit(cli.main())
