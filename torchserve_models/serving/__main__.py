"""python -m torchserve_models.serving serve|stop|status"""

import sys

from torchserve_models.serving.cli import main

sys.exit(main())
