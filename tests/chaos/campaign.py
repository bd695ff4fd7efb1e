"""What the campaign breaks on purpose, and what must hold: one function for each kind, which returns counts.

`tracebacks` and `wrong` (a silent wrong value, a lost or doubled row, a changed content that is accepted) must be 0.
"""

import contextlib
import io
import json
import os
import random
import resource
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx

from hiexp_verl.cli import build_parser, main
from hiexp_verl.errors import HiExpError
from hiexp_verl.hek import HEK
from hiexp_verl.importers import FORMATS
from hiexp_verl.importers.bank import BANKS
from hiexp_verl.io.datasets import passage_of, read_corpus, read_questions, trajectory_of
from hiexp_verl.io.files import write_jsonl
from hiexp_verl.io.questions import question_of
from hiexp_verl.io.rows import BadRow
from hiexp_verl.models.chat_replies import PassingError, names_in, reply_of
from hiexp_verl.protocol import FORMATS as DIALECTS
from hiexp_verl.protocol import final_answer, find_search, searches
from hiexp_verl.scoring import score
from hiexp_verl.search import SearchFailed
from hiexp_verl.search.http import HttpSearch
from hiexp_verl.types import to_json
from tests.support.episodes import trajectories
from tests.support.paths import ROOT
from tests.support.stored_hek import hek

Counts = Counter[str]
REFUSED = (HiExpError, BadRow, SearchFailed, PassingError)
_BUILD = ["build", "--trajectories", "t.jsonl", "--encoder", "hash:64", "--out", "hek"]
_IMPORT = ["import", "t.jsonl", "--format", "hiexp", "--out", "out.jsonl"]


def _command(arguments: list[str], folder: Path, **options: Any) -> "subprocess.Popen[str]":
    line = [sys.executable, "-m", "hiexp_verl.cli", *arguments]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    return subprocess.Popen(line, cwd=folder, env=environment, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True, **options)


@contextlib.contextmanager
def _counted(counts: Counts, done: str, what: str, refused: tuple[type[Exception], ...] = REFUSED) -> Iterator[None]:
    """Count a block as `done`, as refused (in one line) or as a traceback of `what`."""
    try:
        yield
        counts[done] += 1
    except refused as error:
        counts["refused"] += 1
        counts["wrong"] += "\n" in str(error)
    except Exception as error:
        counts["tracebacks"] += 1
        counts[f"traceback: {type(error).__name__}: {error}: {what}"[:400]] += 1


def _unfinished(folder: Path) -> list[str]:
    return [path.name for path in folder.rglob("*") if path.name.startswith((".new-", ".out.jsonl.", ".CURRENT."))]


def kills(folder: Path, rounds: int, seed: int) -> Counts:
    """Kill builds and imports at any moment; the HEK before it stays, the next run ends and leaves nothing unfinished."""
    chance, counts = random.Random(seed), Counts()
    write_jsonl(folder / "t.jsonl", trajectories())
    started = time.monotonic()
    assert _command(_BUILD, folder).wait() == 0
    longest = time.monotonic() - started
    for number in range(rounds):
        before = HEK.load(folder / "hek").content_hash()
        rows = trajectories()[: 12 + number % 12]  # another content, so that there is something to write
        write_jsonl(folder / "t.jsonl", rows)
        process = _command(_IMPORT if number % 3 == 2 else _BUILD, folder)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(chance.uniform(0.3, 1.1) * longest)
        counts["killed" if process.poll() is None else "ended before"] += 1
        process.send_signal(signal.SIGKILL)
        process.communicate()
        try:
            now = HEK.load(folder / "hek")
        except HiExpError:
            counts["wrong"] += 1
            continue
        counts["wrong"] += now.content_hash() != before and len(now.sources) > len(rows)
        for command in (_BUILD, _IMPORT):
            done = _command(command, folder)
            error = done.communicate()[1]
            counts["tracebacks"] += "Traceback" in error
            counts["wrong"] += done.returncode != 0
        old = time.time() - 60
        for name in _unfinished(folder):  # a fresh one may belong to a living writer; it is cleared later
            os.utime(next(folder.rglob(name)), (old, old))
        assert _command(_BUILD, folder).wait() == 0 and _command(_IMPORT, folder).wait() == 0
        counts["left unfinished"] += len(_unfinished(folder))
    versions = [json.loads((path / "header.json").read_text())["content_hash"] for path in (folder / "hek").glob("0*")]
    counts["wrong"] += sum(one == two for one, two in zip(sorted(versions), sorted(versions)[1:], strict=False)) > rounds
    return counts


def writers(folder: Path, rounds: int, seed: int) -> Counts:
    """Edit different entries in several processes at once: each change is in the current version, or its command was refused."""
    counts = Counts()
    hek().save(folder / "hek")
    for number in range(rounds):
        words = {entry: f"Do thing {number} of {entry}." for entry in ("e1-0001", "e1-0002", "e2-0001")}
        made = {
            entry: _command(["edit", "hek", entry, "--description", text, "--reason", "chaos"], folder) for entry, text in words.items()
        }
        errors = {entry: process.communicate()[1] for entry, process in made.items()}
        now = HEK.load(folder / "hek")
        for entry, process in made.items():
            ended = process.returncode == 0
            counts["edited" if ended else "refused"] += 1
            counts["wrong"] += (now.entry(entry).description == words[entry]) != ended
            counts["tracebacks"] += "Traceback" in errors[entry]
            counts["wrong"] += not ended and "was changed meanwhile" not in errors[entry]
    counts["wrong"] += bool(_unfinished(folder))
    del seed
    return counts


def _mutated(content: bytes, chance: random.Random) -> bytes:
    data = bytearray(content)
    for _ in range(chance.choice((1, 1, 2, 8))):
        at = chance.randrange(len(data) + 1)
        kind = chance.randrange(5)
        if kind == 0 and data:
            data[at % len(data)] ^= 1 << chance.randrange(8)
        elif kind == 1:
            data[at:at] = bytes(chance.choice((b"\x00", b"\xff", b'"', b"{", b"[" * 50, b"9" * 30, b"\\ud83d", b"\x1b[2J", b"null", b"\n")))
        elif kind == 2:
            del data[at : at + chance.choice((1, 10, 1000))]
        elif kind == 3:
            other = chance.randrange(len(data) + 1)
            data[at:at] = data[other : other + 40]
        else:
            data = data[:at]
    return bytes(data)


def mutations(folder: Path, rounds: int, seed: int) -> Counts:
    """Change bytes of a HEK's files: it is refused in one line, or its content is what it was."""
    chance, counts = random.Random(seed), Counts()
    version = hek(reason="chaos").save(folder / "hek")
    whole, right = {path: path.read_bytes() for path in version.iterdir()}, HEK.load(version).content_hash()
    checked = [path for path in whole if path.name != "README.md"]
    for _ in range(rounds):
        path = chance.choice(checked)
        path.write_bytes(_mutated(whole[path], chance))
        with _counted(counts, "accepted, unchanged", path.name, (HiExpError,)):
            counts["wrong"] += HEK.load(folder / "hek").content_hash() != right
        path.write_bytes(whole[path])
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
        command, room = (_BUILD, _IMPORT, edit)[number % 3], int(chance.choice((0, 100, 1_000, 5_000, 20_000)) * chance.random())
        shutil.rmtree(folder / "hek", ignore_errors=True)

        def limited(room: int = room) -> None:
            signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
            resource.setrlimit(resource.RLIMIT_FSIZE, (room, room))

        process = _command(command, folder, preexec_fn=limited)
        error = process.communicate()[1]
        counts["tracebacks"] += "Traceback" in error
        if process.returncode:
            counts["refused"] += 1
            counts["wrong"] += HEK.load(folder / "kept").content_hash() != before and command is edit
        else:
            counts["room enough"] += 1
            before = HEK.load(folder / "kept").content_hash()
        counts["wrong"] += command is _IMPORT and process.returncode != 0 and not (folder / "out.jsonl").read_text()
        counts["wrong"] += any(name.startswith(".new-") for name in _unfinished(folder))
    return counts


_ODD = [
    *(
        "",
        " ",
        "x" * 300,
        "file",
        "file/x",
        "folder",
        "hek",
        "hek/0001",
        "loop",
        "t.jsonl",
        "q.jsonl",
        "\0",
        "\x1b[2J",
        "caf\udce9",
        "../..",
    ),
    *("0", "-1", "nan", "1e999", "9" * 30, "9" * 400, "none,full", "http://[::1", "http://127.0.0.1:99999/v1#m", "http://127.0.0.1:1/v1#m"),
    *(
        "hash:0",
        "hash:8",
        "hash:99999999999",
        "openai:x",
        "vllm:folder",
        "rules",
        "e1-0001",
        "prompt.top_k=x",
        "tool.min_score=2",
        "=",
        "--",
    ),
]
_FINE = {"hek": "hek", "a": "hek", "b": "hek/0001", "trajectories": "t.jsonl", "files": "t.jsonl", "encoder": "hash:32", "out": "new"}
_FINE |= {"questions": "q.jsonl", "entry": "e1-0001", "entries": "e1-0001", "reason": "chaos", "description": "Do it.", "format": "hiexp"}
_CHEAP = ("import", "import-bank", "build", "inspect", "retrieve", "diff", "merge", "audit", "versions", "rollback", "edit", "remove")
_CHEAP += ("calibrate", "report", "rollout", "eval")


def odd_commands(folder: Path, rounds: int, seed: int) -> Counts:
    """Give options whatever values: exit code 0, 1 or 2, at most one line of error, no traceback."""
    chance, counts = random.Random(seed), Counts()
    verbs = next(action for action in build_parser()._actions if getattr(action, "choices", None) and "inspect" in action.choices).choices
    places = folder / "odd"
    for number in range(rounds):
        if number % 50 == 0:
            shutil.rmtree(places, ignore_errors=True)
            _places(places)
        verb = chance.choice(_CHEAP)
        command = [verb, *_arguments(verbs[verb]._actions, chance)]
        told = io.StringIO()
        with _counted(counts, "ran", repr(command), ()):
            try:
                with contextlib.chdir(places), contextlib.redirect_stderr(told), contextlib.redirect_stdout(io.StringIO()):
                    status = main(command)
            except SystemExit as error:
                status = int(error.code or 0)
            counts["refused"] += status == 2
            counts["wrong"] += status not in (0, 1, 2) or "\x1b" in told.getvalue()
    return counts


def _places(places: Path) -> None:
    (places / "folder").mkdir(parents=True)
    (places / "file").write_text("text")
    (places / "loop").symlink_to(places / "loop")
    write_jsonl(places / "t.jsonl", trajectories()[:6])
    write_jsonl(places / "q.jsonl", [{"id": "1", "question": "Who?", "answer": "me"}])
    hek().save(places / "hek")


def _arguments(actions: list[Any], chance: random.Random) -> Iterator[str]:
    for action in actions:
        if action.option_strings and not action.required and chance.random() < 0.8:
            continue
        if action.dest in ("help", "html", "json") or (action.dest == "distiller" and chance.random() < 0.7):
            continue
        if action.option_strings:
            yield action.option_strings[-1]
        if action.nargs == 0:
            continue
        for _ in range(action.nargs if isinstance(action.nargs, int) else 1):
            if action.dest in _FINE and chance.random() < 0.6:
                yield _FINE[action.dest]
                continue
            yield str(
                chance.choice([*(action.choices or ()), *_ODD] if chance.random() < 0.5 or not action.choices else list(action.choices))
            )


_STRANGE: list[Any] = [
    None,
    True,
    0,
    -1,
    1e308,
    10**30,
    10**400,
    "",
    " ",
    "\ud83d",
    "\x00",
    "a" * 5000,
    [],
    {},
    [[]],
    {"a": 1},
    ["a", 1],
    "[1",
    "{'a': ",
]
_ROWS: list[dict[str, Any]] = [
    {"id": "1", "question": "Who?", "answer": "me", "answers": ["me", "you"], "golden_answers": ["me"], "answer_aliases": ["I"]},
    {
        "data_source": "nq",
        "id": "train_0",
        "prompt": [{"role": "user", "content": "Use <search>. Question: Who?"}],
        "reward_model": {"ground_truth": {"target": ["me"]}},
        "extra_info": {"index": 0, "split": "train"},
    },
    {"id": "1", "title": "T", "text": "t", "contents": '"T"\nt'},
    {
        "question": "Who?",
        "answer": "me",
        "messages": [{"role": "user", "content": "Who?"}, {"role": "assistant", "content": "<search>x</search>"}],
    },
    {
        "input": "<|im_start|>user\nWho?<|im_end|>\n",
        "output": "<search>x</search>user\ny\nassistant\n<answer>me</answer>",
        "gts": "me",
        "score": 1,
    },
    {"question": "Who?", "answer": "me", "text": "<|begin_of_query|> x <|end_of_query|><|begin_of_documents|>(1)T   t<|end_of_documents|>"},
    {"description": "Do it.", "usage_count": 2, "success_count": 1, "when_to_use": "w", "content": "c", "memory_items": ["## Title a"]},
    to_json(trajectories()[0]) | {"messages": list(trajectories()[0].messages)},
]


# The rows above that a reader takes.
_FITTING = {"question": (0, 1), "passage": (2,), "trajectory": (7,), "import hiexp": (7,), "import verl-dump": (4,), "import openai": (3,)}
_FITTING |= {"import r1-searcher": (5,), **dict.fromkeys((f"bank {name}" for name in BANKS), (6,))}


def _strange(value: Any, chance: random.Random, depth: int = 0) -> Any:
    if chance.random() < 0.12 or depth > 4:
        return chance.choice(_STRANGE)
    if isinstance(value, dict):
        return {key: _strange(each, chance, depth + 1) for key, each in value.items() if chance.random() > 0.04}
    if isinstance(value, list):
        return [_strange(each, chance, depth + 1) for each in value] * chance.choice((1, 1, 1, 0, 2))
    if isinstance(value, str) and chance.random() < 0.2:
        return _mutated(value.encode("utf-8", "surrogatepass"), chance).decode("utf-8", "replace")
    return value


def _readers() -> dict[str, Callable[[dict[str, Any]], Any]]:
    formats = {f"import {name}": lambda row, make=make: _searched(make()(row)) for name, make in FORMATS.items()}
    banks = {f"bank {name}": lambda row, read=read: list(read(row)) for name, read in BANKS.items()}
    return {"question": question_of, "passage": passage_of, "trajectory": trajectory_of, **formats, **banks}


def _searched(trajectory: Any) -> None:
    searches(trajectory.messages)
    final_answer(trajectory.messages)
    json.dumps(trajectory.messages)
    for text in (str(message.get("content")) for message in trajectory.messages):
        for dialect in DIALECTS:
            query = find_search(text, dialect)
            assert query is None or query.encode()
    for answer in trajectory.answers:
        assert answer.strip() and score(answer, [answer]).em == 1.0


def inputs(folder: Path, rounds: int, seed: int) -> Counts:
    """Change values of good rows: every reader returns something checked, or refuses the row."""
    chance, counts = random.Random(seed), Counts()
    readers = _readers()
    for _ in range(rounds):
        name = chance.choice(list(readers))
        row = _strange(_ROWS[chance.choice(_FITTING[name])] if chance.random() < 0.9 else chance.choice(_ROWS), chance)
        with _counted(counts, "read", f"{name}: {row!r}"):
            readers[name](row if isinstance(row, dict) else {"value": row})
    for read, rows in ((read_questions, _ROWS[:2]), (read_corpus, _ROWS[2:3])):
        content = "".join(json.dumps(row) + "\n" for row in rows).encode()
        for number in range(rounds // 20):
            path = folder / f"rows.{chance.choice(('jsonl', 'json', 'tsv', 'parquet'))}"
            path.write_bytes(_mutated(content, chance))
            with _counted(counts, "read", f"{read.__name__}: {path.read_bytes()!r}"):
                read(path)
            path.unlink()
            del number
    return counts


_GOOD = {"result": [[{"document": {"id": "7", "contents": '"T"\nt'}, "score": 1.5}]]}


def replies(folder: Path, rounds: int, seed: int) -> Counts:
    """Let search and chat servers send whatever: a ranking or a failed search, an answer or one line."""
    from openai._models import construct_type  # as the client itself makes what it returns
    from openai.types.chat import ChatCompletion

    chance, counts = random.Random(seed), Counts()
    client = HttpSearch("http://127.0.0.1:1", timeout=1.0, retries=0, cache_size=0)
    heads = [{}, {}, {"content-encoding": "gzip"}, {"content-encoding": "deflate"}, {"content-type": "text/html"}]

    def answer(_: httpx.Request) -> httpx.Response:
        body = json.dumps(_strange(_GOOD, chance)).encode()
        return httpx.Response(
            chance.choice((200, 200, 200, 204, 302, 404, 413, 429, 500)), content=_mutated(body, chance), headers=chance.choice(heads)
        )

    client._client = httpx.Client(transport=httpx.MockTransport(answer))
    good = {"choices": [{"message": {"content": "me", "tool_calls": None}, "finish_reason": "stop"}], "usage": {"completion_tokens": 1}}
    for number in range(rounds):
        client._closed_until = 0.0  # the breaker is another matter
        with _counted(counts, "read", "reply"):
            if number % 2:
                ((ranking,)) = client.search(["q"], 3)
                counts["wrong"] += not all(isinstance(value, float) and value == value for _, value in ranking)
            else:
                body = _strange(good, chance)
                names_in(body, "http://x") if number % 8 == 0 else reply_of(
                    construct_type(type_=ChatCompletion, value=body), ["x"], "http://x"
                )
    del folder
    return counts


# Kind -> what it does, rounds of the short and of the long campaign.
KINDS: dict[str, tuple[Callable[[Path, int, int], Counts], int, int]] = {
    "kills": (kills, 1, 60),
    "writers": (writers, 2, 60),
    "mutations": (mutations, 200, 5_000),
    "full disks": (full_disks, 3, 120),
    "odd command lines": (odd_commands, 150, 3_000),
    "inputs": (inputs, 1_500, 30_000),
    "replies": (replies, 500, 10_000),
}
