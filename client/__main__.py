"""`python -m client predict|manage ...`: what scripts/predict and scripts/manage run."""

import sys

from client.cli import main

sys.exit(main(sys.argv[1:]))
