"""`python -m torchserve_models.tuning`: see `tuning.cli`."""

import sys

if __name__ == "__main__":  # processes of the load generator import this module again
    from torchserve_models.tuning.cli import main

    sys.exit(main())
