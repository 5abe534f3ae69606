"""``python -m lading``."""

import sys

from lading.cli.main import main

sys.exit(main())
