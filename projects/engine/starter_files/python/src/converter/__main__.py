"""`python -m converter` does what the command `convert` does."""

import sys

from converter.cli import main

sys.exit(main())
