"""python -m benchmarks.chaos"""

import sys

if __name__ == "__main__":
    from benchmarks.chaos.cli import main

    sys.exit(main())
