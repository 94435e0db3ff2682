"""``python -m h2a_batch``."""

import sys

from h2a_batch.cli import main

if __name__ == "__main__":
    sys.exit(main())
