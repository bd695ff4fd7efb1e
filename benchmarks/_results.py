"""What every benchmark leaves: NAME.json (all raw numbers), NAME.md (claims, tables) and NAME.svg (growth), with the machine's facts."""

import argparse
import gzip
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from benchmarks import _machine
from hiexp_verl.io.files import atomic_writer
from hiexp_verl.rollout.policy import EVENTS

if TYPE_CHECKING:
    from matplotlib.figure import Figure

RESULTS = Path(__file__).parent / "results"
SIZES = ("smoke", "bench", "long")  # does it run at all; minutes on two cores; for the record


def publish_rows(name: str, found: Mapping[str, Any], text: str, rows: Iterable[Mapping[str, Any]]) -> None:
    """Write NAME.json (what was found), NAME.md (the text) and NAME.rows.jsonl.gz (every row, the same bytes for the same rows)."""
    with atomic_writer(RESULTS / f"{name}.json") as file:
        file.write(json.dumps(found, indent=1) + "\n")
    with atomic_writer(RESULTS / f"{name}.md") as file:
        file.write(text)
    with gzip.GzipFile(RESULTS / f"{name}.rows.jsonl.gz", "wb", mtime=0) as file:
        file.writelines(f"{json.dumps(row, ensure_ascii=False)}\n".encode() for row in rows)


def drawn(name: str, tables: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """Draw NAME.svg: the share right of each arm with its 95% interval, a panel for each table; return the line that shows it."""
    from matplotlib.figure import Figure

    parts = {title: [line for line in table["arms"] if "concise_interval" in line] for title, table in tables.items()}
    most = max((len(lines) for lines in parts.values()), default=1)
    drawing = Figure(figsize=(5.5 * len(parts), 1.2 + 0.32 * most), layout="constrained")
    for axis, (title, lines) in zip(drawing.subplots(1, len(parts), squeeze=False)[0], parts.items(), strict=True):
        for row, line in enumerate(lines):
            low, high = line["concise_interval"]
            axis.plot([low, high], [row, row], "-", color="tab:blue", linewidth=2)
            axis.plot([line["concise"]], [row], "o", color="tab:blue")
        axis.set_yticks(range(len(lines)), [line["arm"].replace(": ", ":\n") for line in lines])
        axis.set(ylim=(most - 0.5, -0.5), xlabel="share right", title=title.replace(", ", ",\n"))
        axis.set_xlim(left=0.0)
        axis.grid(visible=True, axis="x", alpha=0.3)
    save_svg(drawing, RESULTS / f"{name}.svg")
    return [f"![share right of each arm]({name}.svg)", ""]


@dataclass(frozen=True)
class Claim:
    """A figure of ours beside that of what one would use instead, from the same run."""

    what: str
    unit: str
    better: Literal["less", "more"]
    ours: float
    instead: str  # of ours
    theirs: float
    wanted: float | None = None  # of the ratio, where there is a goal: at most that where less is better, at least that else

    @property
    def ratio(self) -> float:
        """Ours for one of theirs."""
        return self.ours / self.theirs

    @property
    def goal(self) -> str:
        """Say what was wanted, and whether it was missed: rounded, the two may be the same."""
        if self.wanted is None:
            return ""
        missed = self.ratio > self.wanted if self.better == "less" else self.ratio < self.wanted
        bound = f"at {'most' if self.better == 'less' else 'least'} {self.wanted:g}"
        return f"{bound}, missed ({self.ratio:.4g})" if missed else bound


@dataclass(frozen=True)
class Panel:
    """Axes of the plot; points are (x, y), both axes logarithmic, but y of a ratio."""

    x: str
    y: str
    lines: dict[str, list[tuple[float, float]]]
    ratio: bool = False


@dataclass(frozen=True)
class Result:
    """What one benchmark found."""

    title: str
    claims: Sequence[Claim]
    panels: Sequence[Panel]
    raw: dict[str, Any]
    text: Sequence[str] = field(default=())  # further lines of Markdown


def loop_events(run: Path) -> list[dict[str, Any]]:
    """Return what the loop of a run did; versions by their names, as no path of this machine goes into a result."""
    file = run / "checkpoints" / EVENTS
    events = [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()] if file.is_file() else []
    return [event | ({"version": Path(event["version"]).name} if "version" in event else {}) for event in events]


def same_settings(out: Path, settings: dict[str, Any]) -> None:
    """Keep what everything in a folder was made with; end where that is not what is asked for now."""
    kept = out / "settings.json"
    if kept.is_file() and (found := json.loads(kept.read_text(encoding="utf-8"))) != settings:
        differ = [f"{key} {found.get(key)}, not {settings.get(key)}" for key in {*found, *settings} if found.get(key) != settings.get(key)]
        raise SystemExit(f"{out} was made with {'; '.join(sorted(differ))}: give another --out")
    out.mkdir(parents=True, exist_ok=True)
    with atomic_writer(kept) as file:
        file.write(json.dumps(settings) + "\n")


def command_line(description: str | None) -> argparse.ArgumentParser:
    """Return a parser with the two options that every benchmark has."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", choices=SIZES, default="bench", help="smoke: whether it runs; bench: minutes; long: for the record")
    parser.add_argument("--out", type=Path, help="default: benchmarks/results, and a folder of its name in it for another size than bench")
    return parser


def folder_of(arguments: argparse.Namespace) -> Path:
    """Return where results go."""
    return arguments.out or (RESULTS if arguments.size == "bench" else RESULTS / arguments.size)


def publish(name: str, machine: dict[str, Any], result: Result, folder: Path) -> None:
    """Write the three files, the JSON last, and print the claims."""
    plot(result.panels, folder / f"{name}.svg")
    lines = [f"# {result.title}", "", *_machine.as_lines(machine), "", *claims_table(result.claims), "", *result.text]
    with atomic_writer(folder / f"{name}.md") as file:
        file.write("\n".join([*lines, *([""] if result.text else []), f"![growth]({name}.svg)", ""]))
    with atomic_writer(folder / f"{name}.json") as file:
        claims = [asdict(claim) for claim in result.claims]
        file.write(json.dumps({"title": result.title, "machine": machine, "claims": claims, **result.raw}, indent=1) + "\n")
    print("\n".join(claims_table(result.claims)), flush=True)


def claims_table(claims: Sequence[Claim]) -> list[str]:
    """Return the claims as a Markdown table."""
    rows = [[*_cells(claim), claim.goal] for claim in claims]
    return table(["", "ours", "instead", "ratio", "wanted"], rows, numbers={1, 3})


def table(head: Sequence[str], rows: Sequence[Sequence[object]], numbers: set[int] | None = None) -> list[str]:
    """Return a Markdown table; the columns of `numbers` (all, where it is None) stand to the right."""
    rules = ["---:" if numbers is None or i in numbers else "---" for i in range(len(head))]
    return [f"| {' | '.join(map(str, row))} |" for row in (head, rules, *rows)]


def summary(folder: Path, link: str = "") -> list[str]:
    """Return one table of the claims of all benchmarks whose results lie in a folder; `link` leads to that folder."""
    rows: list[list[str]] = []
    for path in sorted(folder.glob("*.json")):
        found = json.loads(path.read_text(encoding="utf-8"))
        if "claims" in found:
            when = f"[{found['machine']['date']}, {found['machine']['commit']}]({link}{path.stem}.md)"
            rows += [[*_cells(Claim(**claim)), when] for claim in found["claims"]]
    return table(["", "ours", "instead", "ratio", "measured"], rows, numbers={1, 3})


def figure(value: float) -> str:
    """Return a number with three significant digits, or all before the point: 0.0123, 1.20, 12,345."""
    if abs(value) >= 100 or value == 0:
        return f"{value:,.0f}"
    return f"{value:#.3g}".rstrip(".")


def _cells(claim: Claim) -> list[str]:
    sign = {"less": "less is better", "more": "more is better"}[claim.better]
    return [f"{claim.what}, {claim.unit} ({sign})", figure(claim.ours), f"{claim.instead}: {figure(claim.theirs)}", figure(claim.ratio)]


def plot(panels: Sequence[Panel], path: Path) -> None:
    """Draw the panels side by side; the same numbers give the same bytes."""
    from matplotlib.figure import Figure

    drawing = Figure(figsize=(4.5 * len(panels), 3.6), layout="constrained")
    for axis, panel in zip(drawing.subplots(1, len(panels), squeeze=False)[0], panels, strict=True):
        for style, (label, points) in zip(("o-", "s--", "^:", "d-."), panel.lines.items(), strict=False):
            axis.plot(*zip(*points, strict=True), style, label=label)
        axis.set_xscale("log", base=2)
        if not panel.ratio:
            axis.set_yscale("log")
            least, most = axis.get_ylim()
            axis.yaxis.set_major_formatter("{x:g}")
            axis.yaxis.set_minor_formatter("{x:g}" if most < 10 * least else "")
        ticks = sorted({x for points in panel.lines.values() for x, _ in points})
        axis.set_xticks(ticks, [f"{x:,g}" for x in ticks], rotation=45 if len(ticks) > 5 else 0)
        axis.set(xlabel=panel.x, ylabel=panel.y)
        axis.grid(visible=True, which="both", alpha=0.3)
        axis.legend()
    save_svg(drawing, path)


def save_svg(drawing: "Figure", path: Path) -> None:
    """Write a figure; the same drawing gives the same bytes."""
    import matplotlib as mpl

    with mpl.rc_context({"svg.hashsalt": path.stem}), atomic_writer(path) as file:
        drawing.savefig(file, format="svg", metadata={"Date": None})
