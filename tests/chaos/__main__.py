"""Entry point of `python -m tests.chaos`."""

import sys

if __name__ == "__main__":
    from tests.chaos.cli import main

    sys.exit(main())
