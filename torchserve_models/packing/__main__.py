"""`python -m torchserve_models.packing`: see packing.cli."""

import sys

from torchserve_models.packing.cli import main

if __name__ == "__main__":
    sys.exit(main())
