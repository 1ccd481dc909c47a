"""python -m serving serve|stop|status"""

import sys

from serving.cli import main

sys.exit(main())
