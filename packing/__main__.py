"""`python -m packing`: see packing.cli."""

import sys

from packing.cli import main

if __name__ == "__main__":
    sys.exit(main())
