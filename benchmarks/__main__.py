"""python -m benchmarks"""

import sys

if __name__ == "__main__":  # processes that are spawned import this module again
    from benchmarks.cli import main

    sys.exit(main())
