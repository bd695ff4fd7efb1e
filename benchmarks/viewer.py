"""How fast the viewer is: a made-up HEK of N entries, its page, and a headless Chromium that uses it.

    python -m benchmarks.viewer --entries 20000

writes benchmarks/viewer_DATE.json: command, commit, machine, size, and the milliseconds of every repetition.
"""

import argparse
import json
import os
import platform
import random
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from datetime import date
from pathlib import Path
from typing import Any

from hiexp_verl.hek import HEK, Header
from hiexp_verl.models.encoder import HashEncoder
from hiexp_verl.report.viewer import write_viewer
from hiexp_verl.types import Entry, Evidence, Level, Source
from tests.support.browser import CHROMIUM, Browser, browser

FINDINGS = ("no_answer", "wrong_entity", "repeated_query", "stopped_early", "dropped_condition", "answer_form")
SHAPES = ("indirect", "compare", "common", "verify", "direct")
ASKED = ("person", "country", "city", "year", "film", "number", "company", "river")
RELATIONS = ("director", "founder", "capital", "author", "spouse", "birthplace", "largest lake", "first coach", "publisher")
THINGS = ("a film", "a football club", "a mountain", "a novel", "a company", "a river", "an album", "a university", "a battle")
ADVICE = (
    "Resolve the {relation} first, then ask for the {asked} by that name.",
    "Search each of the two things on its own and compare what the passages say of the {asked}.",
    "Do not repeat a query that brought nothing about {thing}; change the words that name the {relation}.",
    "Answer with the {asked} alone, as the passage writes it, once the {relation} is certain.",
)
# A measurement runs from an action to the second frame after it, when its result has been painted.
FRAMES = "await new Promise(done => requestAnimationFrame(() => requestAnimationFrame(done)))"
SET = "document.getElementById('%s').value = '%s'; document.getElementById('filters').dispatchEvent(new Event('input'))"
SCROLL = "document.getElementById('list').scrollTop = %s * document.getElementById('list').scrollHeight"
ACTIONS = {
    "nothing (two frames)": ["0"],
    "keystroke in the search box": [SET % ("search", text) for text in ("c", "capital", "capital of", "capital of y", "zzz", "")],
    "filter by level": [SET % ("level", level) for level in ("0", "1", "")],
    "show as tree, as list": [SET % ("view", view) for view in ("tree", "list")],
    "scroll the list to its middle, its end": [SCROLL % place for place in (0.5, 1)],
    "open an E1": ["location.hash = 'e1-00007'", "location.hash = 'e1-00900'"],
    "open an E3": ["location.hash = 'e3-00001'", "location.hash = 'e3-00002'"],
}


def made_up_hek(size: int, seed: int = 0) -> HEK:
    """Return E1, E2 and E3 as 20 : 4 : 1 and `2 * size` sources, a failure and a success of each question."""
    draw = random.Random(seed)
    patterns, strategies = size * 4 // 25, size // 25
    cases = size - patterns - strategies
    sources = [source for number in range(size) for source in _sources(number, draw)]
    # The sources that exceed two for each case make some cases rest on two questions, as merged ones do.
    e1 = [_case(n, draw, sources[2 * n : 2 * n + 2] + sources[2 * (cases + n) : 2 * (cases + n) + 2]) for n in range(cases)]
    e2 = [_parent("e2", n, draw, e1[n::patterns]) for n in range(patterns)]
    e3 = [_parent("e3", n, draw, e2[n::strategies]) for n in range(strategies)]
    entries, encoder = (*e1, *e2, *e3), HashEncoder(32)
    vectors_E_D = encoder.encode_passages([entry.title for entry in entries])
    return HEK(Header(encoder.identity, distiller="made up"), entries, vectors_E_D, tuple(sources))


def _sources(number: int, draw: random.Random) -> list[Source]:
    a, b, c = (draw.choice(("Bar", "Nel", "Rio", "Sun", "Tor", "Kel")) + draw.choice(("mont", "stad", "vale", "dor")) for _ in "abc")
    relation, asked = draw.choice(RELATIONS), draw.choice(ASKED)
    question = f"Which {asked} is the {relation} of the one that {a} and {b} were both named after in {1800 + number % 200}?"
    first = f"{a} {b} named after"
    failure = (first, *(f"{a} {relation} {word}" for word in ("list", "history", "of")[: number % 4]))
    success = (first, f"{relation} of {c}", f"{c} {asked}")
    return [
        Source(f"q{number}#1", f"q{number}", question, "policy-7b", a, False, failure),
        Source(f"q{number}#0", f"q{number}", question, "policy-7b", c, True, success),
    ]


def _case(number: int, draw: random.Random, sources: Sequence[Source]) -> Entry:
    quote = f'Doc 2(Title: "Almanac") It is what most sources name for it, and the {draw.choice(ASKED)} follows from there.'
    evidence = tuple(Evidence(source.id, 3, 120, 120 + len(quote), "parts here", quote) for source in sources)
    questions = tuple(dict.fromkeys(source.question_id for source in sources))
    return _entry("e1", number, draw, questions=questions, sources=tuple(source.id for source in sources), evidence=evidence)


def _parent(level: Level, number: int, draw: random.Random, children: Sequence[Entry]) -> Entry:
    questions = tuple(question for child in children for question in child.questions)
    sources = tuple(source for child in children for source in child.sources)
    return _entry(level, number, draw, children=tuple(child.id for child in children), questions=questions, sources=sources)


def _entry(level: Level, number: int, draw: random.Random, **fields: Any) -> Entry:
    relation, asked, thing = draw.choice(RELATIONS), draw.choice(ASKED), draw.choice(THINGS)
    return Entry(
        f"{level}-{number + 1:05d}",
        level,
        f"What {asked} is the {relation} of {thing} [Y], when {draw.choice(THINGS)} of the same name is known, too?",
        draw.choice(ADVICE).format(relation=relation, asked=asked, thing=thing),
        kind=draw.choice(("guide", "guide", "pitfall")),
        findings=(draw.choice(FINDINGS),),
        shapes=(draw.choice(SHAPES),),
        asked_for=(asked,),
        counters={"merged": number % 5},
        **fields,
    )


def measure(tab: Browser, url: str, repeats: int) -> dict[str, list[float]]:
    """Return the milliseconds of each repetition, by what was done."""
    found: dict[str, list[float]] = {}
    for _ in range(repeats):
        tab.open(url)
        tab.run(f"(async () => {{ {FRAMES} }})()")
        found.setdefault("load until ready", []).append(tab.run("performance.getEntriesByType('navigation')[0].loadEventEnd"))
        for name, scripts in ACTIONS.items():
            for script in scripts:
                code = f"(async () => {{ const start = performance.now(); {script}; {FRAMES}; return performance.now() - start; }})()"
                found.setdefault(name, []).append(tab.run(code))
    faults = tab.faults()
    if faults:
        raise RuntimeError(f"the page complained: {faults}")
    return {name: [round(value, 1) for value in values] for name, values in found.items()}


def machine() -> dict[str, Any]:
    """Return what the figures depend on."""
    cpu = [line.split(":")[1].strip() for line in Path("/proc/cpuinfo").read_text().splitlines() if line.startswith("model name")]
    return {"cpu": cpu[0] if cpu else platform.machine(), "cores": os.cpu_count(), "system": platform.platform(), "load": os.getloadavg()}


def _output(*command: str) -> str:
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()


def main() -> None:
    """Write the HEK's page, measure it, write the result."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--entries", type=int, default=20_000)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--page", type=Path, help="keep the page here")
    arguments = parser.parse_args()
    hek = made_up_hek(arguments.entries)
    with tempfile.TemporaryDirectory() as folder:
        page = (arguments.page or Path(folder) / "hek.html").resolve()
        start = time.perf_counter()
        size = write_viewer(hek, page)
        result: dict[str, Any] = {
            "command": f"python -m benchmarks.viewer --entries {arguments.entries} --repeats {arguments.repeats}",
            "commit": _output("git", "describe", "--always", "--dirty", "--abbrev=40"),
            "machine": machine(),
            "python": sys.version.split()[0],
            "entries": hek.levels,
            "sources": len(hek.sources),
            "write_seconds": round(time.perf_counter() - start, 2),
            "page_megabytes": round(size / 1e6, 2),
        }
        if CHROMIUM is not None:
            with browser() as tab:
                result["browser"] = tab.version()
                result["milliseconds"] = measure(tab, page.as_uri(), arguments.repeats)
                result["elements"] = tab.run("document.querySelectorAll('*').length")
    path = Path(__file__).with_name(f"viewer_{date.today().isoformat()}.json")
    path.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    print(f"{path}: {result['page_megabytes']} MB, written in {result['write_seconds']} s")
    for name, values in result.get("milliseconds", {}).items():
        print(f"{name:40} median {statistics.median(values):8.1f} ms   slowest {max(values):8.1f} ms   of {len(values)}")


if __name__ == "__main__":
    main()
