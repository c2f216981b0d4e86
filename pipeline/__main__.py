"""python -m pipeline is handset."""

import sys

from pipeline.cli import main

if __name__ == "__main__":
    sys.exit(main())
