"""python -m torchserve_models.demo: see cli.py."""

import sys

from torchserve_models.demo.cli import main

sys.exit(main(sys.argv[1:]))
