"""`python -m torchserve_models`: the command `torchserve-models`."""

import sys

if __name__ == "__main__":  # processes of the load generator import this module again
    from torchserve_models.cli.program import main

    sys.exit(main())
