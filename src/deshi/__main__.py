"""``python -m deshi`` is the command ``deshi``."""

import sys

from deshi.cli import main

if __name__ == "__main__":
    sys.exit(main())
