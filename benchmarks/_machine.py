"""What a number was measured on and with."""

import datetime
import json
import os
import platform
import subprocess
import sys
from pathlib import Path
from typing import Any

from hiexp_verl.io.files import atomic_writer
from hiexp_verl.io.manifest import software

# What is changed but for what the benchmarks themselves write.
_NOT_WRITTEN_BY_US = ("--untracked-files=no", "--", ":(top)", ":(top,exclude)benchmarks/results", ":(top,exclude)README.md")


def facts() -> dict[str, Any]:
    """Return the command, the commit, the machine and the versions."""
    return {
        "command": _command(),
        "date": datetime.date.today().isoformat(),
        "commit": _git("rev-parse", "--short", "HEAD") + ("+changes" if _git("status", "--porcelain", *_NOT_WRITTEN_BY_US) else ""),
        "cpu": _first("/proc/cpuinfo", "model name") or platform.processor(),
        "cores": os.cpu_count(),
        "memory_gib": round(int(_first("/proc/meminfo", "MemTotal").split()[0]) / 2**20, 1),
        "load_before": os.getloadavg()[0],
        "system": f"{platform.system()} {platform.release()}",
        "packages": software(),
    }


def facts_when_begun(folder: Path) -> dict[str, Any]:
    """Return the facts of when the work in a folder began: a later call that only writes the results anew measured nothing."""
    kept = folder / "machine.json"
    if not kept.is_file():
        with atomic_writer(kept) as file:
            file.write(json.dumps(facts(), indent=1) + "\n")
    found: dict[str, Any] = json.loads(kept.read_text(encoding="utf-8"))
    return found


def as_lines_when_written(machine: dict[str, Any]) -> list[str]:
    """Return the facts of when the work began, and the commit of now where it is another one."""
    now = facts()["commit"]
    return as_lines(machine) + ([f"- begun at that commit, written at {now}"] if now != machine["commit"] else [])


def as_lines(machine: dict[str, Any]) -> list[str]:
    """Return the facts as a Markdown list."""
    packages = ", ".join(f"{name} {version}" for name, version in machine["packages"].items())
    return [
        f"- command: `{machine['command']}` at commit {machine['commit']}, {machine['date']}",
        f"- machine: {machine['cpu']}, {machine['cores']} cores, {machine['memory_gib']} GiB, {machine['system']}",
        f"- load average before the run: {machine['load_before']:.1f}",
        f"- {packages}",
    ]


def peak_gib() -> float:
    """Return the most memory that this process has had so far.

    Not `ru_maxrss`, which a child takes over from the process that started it.
    """
    return int(_first("/proc/self/status", "VmHWM").split()[0]) / 2**20


def _command() -> str:
    """Return how to repeat the run on another machine: no path of this one."""
    arguments = [f".../{Path(argument).name}" if Path(argument).is_absolute() else argument for argument in sys.argv[1:]]
    return " ".join(["python -m", f"benchmarks.{Path(sys.argv[0]).stem}", *arguments])


def _git(*arguments: str) -> str:
    return subprocess.run(["git", *arguments], cwd=Path(__file__).parent, capture_output=True, text=True, check=True).stdout.strip()


def _first(path: str, key: str) -> str:
    lines = Path(path).read_text(encoding="utf-8").splitlines() if Path(path).is_file() else []
    return next((line.split(":", 1)[1].strip() for line in lines if line.startswith(key)), "")
