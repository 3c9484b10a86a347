"""Run the command line tool with ``python -m vhdx2raw``."""

import sys

from vhdx2raw.cli import main

sys.exit(main())
