"""Run every benchmark one after the other; `make bench` is this.

    python -m benchmarks [--size smoke|bench|long] [--out DIR] [NAME...]

Writes what each of them writes, and DIR/README.md with the claims of all. In the size `bench`, at most 15 minutes on 2 cores,
that table also goes into docs/results.md. A benchmark that fails, or hangs, is named at the end and the exit code
is 1; the others run, and the table keeps what is there of it from before, with that date and commit.
"""

import json
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from benchmarks._results import RESULTS, command_line, folder_of, summary
from hiexp_verl.io.files import atomic_writer
from hiexp_verl.models.vllm_process import start_child, stop_child

ROOT = Path(__file__).parents[1]
NAMES = ("retrieval", "clustering", "memory", "encoder_dtype", "ledger", "selection", "distil_throughput", "overhead")
MOST_SECONDS = {"smoke": 600.0, "bench": 900.0, "long": 4 * 3600.0}  # of one benchmark; one that takes longer hangs
BEGIN, END = "<!-- make bench: begin -->", "<!-- make bench: end -->"


def main() -> None:
    """Run, summarise, exit with 1 when one failed."""
    parser = command_line(__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"only these: {', '.join(NAMES)}")
    arguments = parser.parse_args()
    names = arguments.names or NAMES
    if unknown := sorted(set(names) - set(NAMES)):
        parser.error(f"no benchmark {', '.join(unknown)}; there are {', '.join(NAMES)}")
    folder = folder_of(arguments)
    options = ["--size", arguments.size, *(["--out", str(arguments.out)] if arguments.out else [])]
    commands = {name: [sys.executable, "-m", f"benchmarks.{name}", *options] for name in names}
    failed = run_all(commands, MOST_SECONDS[arguments.size])
    lines = summary(folder)
    with atomic_writer(folder / "README.md") as file:
        file.write("\n".join(["# Benchmarks", "", *lines, *others(folder), ""]))
    print("\n".join(lines), flush=True)
    if folder == RESULTS:
        replace_between(ROOT / "docs" / "results.md", summary(folder, "../benchmarks/results/"))
    sys.exit(f"failed: {', '.join(f'{name} ({why})' for name, why in failed.items())}" if failed else 0)


def run_all(commands: Mapping[str, Sequence[str]], most_seconds: float) -> dict[str, str]:
    """Run the commands in turn, their output going where ours goes; return why each of those that failed did."""
    failed: dict[str, str] = {}
    started = time.monotonic()
    for number, (name, command) in enumerate(commands.items(), 1):
        print(f"== {number}/{len(commands)} {name}, {time.monotonic() - started:.0f} s so far", flush=True)
        child = start_child(command, cwd=ROOT)
        try:
            if code := child.wait(timeout=most_seconds):
                failed[name] = f"exit code {code}"
        except subprocess.TimeoutExpired:
            failed[name] = f"stopped after {most_seconds:g} s"
        finally:
            stop_child(child)
    print(f"== done in {time.monotonic() - started:.0f} s", flush=True)
    return failed


def others(folder: Path) -> list[str]:
    """Return links to the results there that make no claim of a ratio, or of which `make bench` knows nothing."""
    pages = {page: page.with_suffix(".json") for page in sorted(folder.glob("*.md")) if page.name != "README.md"}
    links = [
        f"- [{page.read_text(encoding='utf-8').partition(chr(10))[0].lstrip('# ')}]({page.name})"
        for page, raw in pages.items()
        if not (raw.is_file() and "claims" in json.loads(raw.read_text(encoding="utf-8")))
    ]
    return ["", "Measured by commands of their own, which stand in each:", "", *links] if links else []


def replace_between(page: Path, lines: Sequence[str]) -> None:
    """Put the lines between the two marks of a page."""
    text = page.read_text(encoding="utf-8")
    if text.count(BEGIN) != 1 or text.count(END) != 1 or text.index(BEGIN) > text.index(END):
        sys.exit(f"{page} has no place for the table: write {BEGIN} and {END} into it once, each on a line of its own")
    before, after = text.split(BEGIN)[0], text.split(END)[1]
    with atomic_writer(page) as file:
        file.write("\n".join([f"{before}{BEGIN}", *lines, f"{END}{after}"]))


if __name__ == "__main__":
    main()
