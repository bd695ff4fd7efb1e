"""Run the campaign and print the counts.

    python -m tests.chaos [--long] [--seed N] [--only KIND ...] [--json FILE]

Exit code 1 when there was a traceback, a silent wrong value or an unfinished file.
"""

import argparse
import json
import logging
import sys
import tempfile
import time
from pathlib import Path

from tests.chaos.campaign import KINDS


def run(names: list[str], long: bool, seed: int) -> dict[str, dict[str, int]]:
    """Return the counts of each kind."""
    found = {}
    for name in names:
        function, short, many = KINDS[name]
        started = time.monotonic()
        with tempfile.TemporaryDirectory(prefix="hiexp-chaos-") as folder:
            counts = function(Path(folder), many if long else short, seed)
        found[name] = {key: count for key, count in counts.items() if count}
        told = ", ".join(f"{count} {key}" for key, count in found[name].items())
        print(f"{name:>18}  {told}; {time.monotonic() - started:.0f} s", file=sys.stderr, flush=True)  # noqa: T201
    return found


def faults(found: dict[str, dict[str, int]]) -> int:
    """Return the number of things that must not happen."""
    return sum(counts.get(key, 0) for counts in found.values() for key in ("tracebacks", "wrong", "left unfinished"))


def main() -> None:
    """Run the campaign."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--long", action="store_true", help="about an hour instead of a minute")
    parser.add_argument("--seed", type=int, default=0, help="of all choices (default 0)")
    parser.add_argument("--only", nargs="+", choices=tuple(KINDS), default=list(KINDS), metavar="KIND", help=", ".join(KINDS))
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the counts there")
    arguments = parser.parse_args()
    logging.disable(logging.CRITICAL)
    found = run(arguments.only, arguments.long, arguments.seed)
    if arguments.json:
        arguments.json.write_text(json.dumps(found, indent=1) + "\n")
    print(json.dumps(found, indent=1))  # noqa: T201
    sys.exit(1 if faults(found) else 0)


if __name__ == "__main__":
    main()
