"""Processes that are killed, that write at once, that find the disk full."""

import contextlib
import json
import os
import random
import resource
import shutil
import signal
import subprocess
import time
from pathlib import Path

from hiexp_verl.errors import HiExpError
from hiexp_verl.hek import HEK
from hiexp_verl.hek.versions import versions
from hiexp_verl.io.files import write_jsonl
from hiexp_verl.ledger.rows import LEDGER, append_rows, rows_of
from tests.chaos.counting import Counts, command, unfinished
from tests.support.episodes import trajectories
from tests.support.stored_hek import entry, hek

_BUILD = ["build", "--trajectories", "t.jsonl", "--encoder", "hash:64", "--out", "hek"]
_IMPORT = ["import", "t.jsonl", "--format", "hiexp", "--out", "out.jsonl"]


def kills(folder: Path, rounds: int, seed: int) -> Counts:
    """Kill builds and imports at any moment; the HEK before it stays, the next run ends and leaves nothing unfinished."""
    chance, counts = random.Random(seed), Counts()
    write_jsonl(folder / "t.jsonl", trajectories())
    started = time.monotonic()
    assert command(_BUILD, folder).wait() == 0
    longest = time.monotonic() - started
    for number in range(rounds):
        before = HEK.load(folder / "hek").content_hash()
        rows = trajectories()[: 12 + number % 12]  # another content, so that there is something to write
        write_jsonl(folder / "t.jsonl", rows)
        process = command(_IMPORT if number % 3 == 2 else _BUILD, folder)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(chance.uniform(0.2, 0.8) * longest)
        counts["killed" if process.poll() is None else "ended before"] += 1
        process.send_signal(signal.SIGKILL)
        process.communicate()
        try:
            now = HEK.load(folder / "hek")
        except HiExpError:
            counts["wrong"] += 1
            continue
        counts["wrong"] += now.content_hash() != before and len(now.sources) > len(rows)
        for line in (_BUILD, _IMPORT):
            done = command(line, folder)
            error = done.communicate()[1]
            counts["tracebacks"] += "Traceback" in error
            counts["wrong"] += done.returncode != 0
        old = time.time() - 60
        for name in unfinished(folder):  # a fresh one may belong to a living writer; it is cleared later
            os.utime(next(folder.rglob(name)), (old, old))
        assert command(_BUILD, folder).wait() == 0 and command(_IMPORT, folder).wait() == 0
        counts["left unfinished"] += len(unfinished(folder))
    versions = [json.loads((path / "header.json").read_text())["content_hash"] for path in (folder / "hek").glob("0*")]
    counts["wrong"] += sum(one == two for one, two in zip(sorted(versions), sorted(versions)[1:], strict=False)) > rounds
    return counts


def writers(folder: Path, rounds: int, seed: int) -> Counts:
    """Edit different entries in several processes at once: each change is in the current version, or its command was refused."""
    counts = Counts()
    hek().save(folder / "hek")
    for number in range(rounds):
        words = {name: f"Do thing {number} of {name}." for name in ("e1-0001", "e1-0002", "e2-0001")}
        made = {name: command(["edit", "hek", name, "--description", text, "--reason", "chaos"], folder) for name, text in words.items()}
        errors = {name: process.communicate()[1] for name, process in made.items()}
        now = HEK.load(folder / "hek")
        for name, process in made.items():
            ended = process.returncode == 0
            counts["edited" if ended else "refused"] += 1
            counts["wrong"] += (now.entry(name).description == words[name]) != ended
            counts["tracebacks"] += "Traceback" in errors[name]
            counts["wrong"] += not ended and "was changed meanwhile" not in errors[name]
    counts["wrong"] += bool(unfinished(folder))
    del seed
    return counts


def full_disks(folder: Path, rounds: int, seed: int) -> Counts:
    """Let writing fail after some bytes: the command says so in one line, and what was there stays."""
    chance, counts = random.Random(seed), Counts()
    write_jsonl(folder / "t.jsonl", trajectories())
    hek().save(folder / "kept")
    before = HEK.load(folder / "kept").content_hash()
    (folder / "out.jsonl").write_text("old\n")
    edit = ["edit", "kept", "e1-0001", "--description", "Do another thing.", "--reason", "chaos"]
    for number in range(rounds):
        line, room = (_BUILD, _IMPORT, edit)[number % 3], int(chance.choice((0, 100, 1_000, 5_000, 20_000)) * chance.random())
        shutil.rmtree(folder / "hek", ignore_errors=True)

        def limited(room: int = room) -> None:
            signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
            resource.setrlimit(resource.RLIMIT_FSIZE, (room, room))

        process = command(line, folder, preexec_fn=limited)
        error = process.communicate()[1]
        counts["tracebacks"] += "Traceback" in error
        if process.returncode:
            counts["refused"] += 1
            counts["wrong"] += HEK.load(folder / "kept").content_hash() != before and line is edit
        else:
            counts["room enough"] += 1
            before = HEK.load(folder / "kept").content_hash()
        counts["wrong"] += line is _IMPORT and process.returncode != 0 and not (folder / "out.jsonl").read_text()
        counts["wrong"] += any(name.startswith(".new-") for name in unfinished(folder))
    return counts


_CHANGES = {
    "edit": ["edit", "hek", "e1-0001", "--description", "Do thing {number}.", "--reason", "chaos"],
    "edit another": ["edit", "hek", "e1-0002", "--description", "Do thing {number} as well.", "--reason", "chaos"],
    "remove": ["remove", "hek", "e1-0003", "--reason", "chaos", "--with-orphans"],
    "merge": ["merge", "hek", "other", "--out", "hek", "--encoder", "hash:32"],
    "rollback": ["rollback", "hek"],
    "calibrate": ["calibrate", "hek", "--encoder", "hash:32"],
    "retire": ["ledger", "hek", "--retire"],
    "build": ["build", "--trajectories", "t.jsonl", "--encoder", "hash:32", "--out", "hek"],
    "import-bank": ["import-bank", "bank.jsonl", "--format", "reme", "--encoder", "hash:32", "--out", "hek"],
}


def changes_at_once(folder: Path, rounds: int, seed: int) -> Counts:
    """Run four verbs that change one HEK at the same time: what ended is a version that loads, the others are refused, none half."""
    chance, counts = random.Random(seed), Counts()
    hek(entry(1), entry(2), entry(3), entry(1, "e2", children=("e1-0001", "e1-0002"))).save(folder / "hek")
    hek(entry(9), reason="other").save(folder / "other")
    append_rows(folder / "hek" / LEDGER / "run.jsonl", rows_of(trajectories()))
    write_jsonl(folder / "bank.jsonl", [{"when_to_use": "a river is asked for", "content": "Search its mouth.", "score": 1}])
    for number in range(rounds):
        write_jsonl(folder / "t.jsonl", trajectories()[: 12 + number % 12])
        names = chance.sample(list(_CHANGES), 4)
        made = {name: command([each.format(number=number) for each in _CHANGES[name]], folder) for name in names}
        for name, process in made.items():
            error = process.communicate()[1]
            counts[f"{name}: {'ended' if process.returncode == 0 else 'refused'}"] += 1
            if process.returncode not in (0, 2) or (process.returncode == 2 and "hiexp: " not in error):
                counts["wrong"] += 1
                counts[f"{name} exits with {process.returncode}: {error[-400:]}"] += 1
            counts["tracebacks"] += "Traceback" in error
        now, listed = HEK.load(folder / "hek"), versions(folder / "hek")
        counts["wrong"] += any(each.fault for each in listed) or [int(each.name) for each in listed] != list(range(1, len(listed) + 1))
        if made["edit"].returncode == 0 if "edit" in made else False:
            texts = [(folder / "hek" / each.name / "entries.jsonl").read_text() for each in listed]
            counts["wrong"] += not any(f"Do thing {number}." in text for text in texts)
        counts["wrong"] += not now.entries or bool(_fresh(folder))
        if "e1-0003" not in {each.id for each in now.entries} or not number % 5:  # so that all verbs find what they change
            hek(entry(1), entry(2), entry(3, description=f"Begin {number}."), entry(1, "e2", children=("e1-0001", "e1-0002"))).save(
                folder / "hek"
            )
    return counts


def _fresh(folder: Path) -> list[str]:
    return [name for name in unfinished(folder) if name.startswith(".new-")]
