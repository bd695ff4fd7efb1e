"""`python -m hiexp_verl.cli`."""

import sys

from hiexp_verl.cli import main

if __name__ == "__main__":
    sys.exit(main())
