"""`python -m torchserve_models.client predict|manage ...`: what scripts/predict and scripts/manage run."""

import sys

from torchserve_models.client.cli import main

sys.exit(main(sys.argv[1:]))
