"""The command line: python -m neuronsplit, which is also the command neuronsplit."""

import sys

from neuronsplit.study.cli import main

if __name__ == "__main__":
    sys.exit(main())
