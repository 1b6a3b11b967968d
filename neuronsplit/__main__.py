"""The command line: python -m neuronsplit."""

import sys

from neuronsplit.study.cli import main

if __name__ == "__main__":
    sys.exit(main())
