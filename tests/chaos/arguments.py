"""Odd command lines, settings and addresses."""

import dataclasses
import random
import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import openai
import yaml

from hiexp_verl.cli import build_parser
from hiexp_verl.config import Budgets, HiExpConfig, parse_config
from hiexp_verl.io.files import write_jsonl
from hiexp_verl.models.http import openai_client
from hiexp_verl.rollout.as_trained import read_budgets
from hiexp_verl.search.http import HttpSearch
from hiexp_verl.text import is_local
from tests.chaos.counting import REFUSED, Counts, counted, run_here
from tests.chaos.strange import STRANGE, mutated, strange
from tests.support.episodes import trajectories
from tests.support.stored_hek import hek

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
        run_here([verb, *_arguments(verbs[verb]._actions, chance)], places, counts)
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


_YAML = ("2026-13-45", "!!int x", "!!python/object:os.system x", "!!timestamp x", "[" * 3000, "0x" + "f" * 400, "1:9:9:9:9:9", "&a [*a]")
_YAML += (
    "<<: {a: 1}",
    "? [a]",
    "- - -",
    "null",
    "~",
    "yes",
    ".nan",
    "-.inf",
    "'",
    "%",
    "@x",
    "`x`",
    "\t",
    "{a: 1, a: 2}",
    "!!binary x",
    "1_000",
)
_SECONDS = 2.0  # of the processor, for one block of settings


def settings(folder: Path, rounds: int, seed: int) -> Counts:
    """Give settings values of YAML, aliases upon aliases among them: a block of the right types, or one line, at once."""
    chance, counts = random.Random(seed), Counts()
    keys = list(Budgets().flat())
    block = yaml.safe_load(yaml.safe_dump(_plain(HiExpConfig())))
    for number in range(rounds):
        started = time.process_time()
        text = _yaml(chance)
        with counted(counts, "read", text[:200]):
            if number % 2:
                read_budgets([f"{chance.choice(keys)}={text}"])
            else:
                changed = strange(block, chance)
                changed = dict(changed) if isinstance(changed, dict) else {"prompt": changed}
                try:
                    changed[chance.choice([*block, "odd"])] = yaml.safe_load(text)
                except (yaml.YAMLError, ValueError, AttributeError, RecursionError):  # Hydra's to refuse
                    counts["not YAML"] += 1
                parse_config(changed)
        counts["wrong"] += time.process_time() - started > _SECONDS
    del folder
    return counts


def _plain(value: Any) -> Any:
    if dataclasses.is_dataclass(value):
        return {each.name: _plain(getattr(value, each.name)) for each in dataclasses.fields(value)}
    return [_plain(each) for each in value] if isinstance(value, tuple | list) else value if not isinstance(value, Path) else str(value)


def _yaml(chance: random.Random) -> str:
    kind = chance.randrange(4)
    if kind == 0:
        return chance.choice(_YAML)
    if kind == 1:
        return mutated(b"{top_k: 3, levels: [e2, e3], min_score: 0.5}", chance).decode("utf-8", "replace")
    if kind == 2:
        return str(chance.choice(STRANGE))
    width, depth, pair = chance.randint(2, 9), chance.randint(1, 12), chance.choice(("[{}]", "{{k: [{}]}}"))
    steps = [f"&a0 {pair.format(','.join('x' * width))}"]
    steps += [f"&a{level} {pair.format(','.join([f'*a{level - 1}'] * width))}" for level in range(1, depth)]
    return f"[{', '.join(steps)}]"


_SECRET = "s3cret"
_HOSTS = (
    "127.0.0.1",
    "localhost",
    "[::1]",
    "[::1",
    "::1]",
    "",
    "a..b",
    "xn--",
    "x" * 300,
    "127.1",
    "\u0661\u0662.0.0.1",
    "%31",
    "127.0.0.1%00",
)
_HOSTS += (
    "[v1.x]",
    "[fe80::1%25eth0]",
    "a b",
    "a\x01b",
    "a\\b",
    "\u3002",
    "127.0.0.1\u2028",
    "-",
    ".",
    "*",
    "127.0.0.1,127.0.0.2",
    "[]",
    "\udce9",
)


def addresses(folder: Path, rounds: int, seed: int) -> Counts:
    """Give addresses of odd parts to the clients of search and of models: one line, without the password in it."""
    chance, counts = random.Random(seed), Counts()
    for _ in range(rounds):
        scheme = chance.choice(("http://", "http://", "https://", "ftp://", "", "http:/", "HTTP://", "http:///", "//", "file://"))
        user = chance.choice(("", f"me:{_SECRET}@", f"{_SECRET}@", f"me:{_SECRET}@x:y@", f":{_SECRET}@"))
        port = chance.choice(("", ":1", ":0", ":99999", ":-1", ":x", ":\uff11", ":" + "9" * 400, ":1:1"))
        path = chance.choice(("", "/", "/v1#m", "/v1#", "#", "?q=%", "/%zz", "/../..", "/v1?x#m", "/\u00e9#m", "/" + "a" * 9000))
        address = scheme + user + chance.choice(_HOSTS) + port + path
        for name, ask in _ASKED.items():
            told = ""
            with counted(counts, f"{name} answered", f"{name}: {address[:200]!r}", (*REFUSED, openai.APIError)):
                try:
                    ask(address)
                except REFUSED as error:
                    told = str(error)
                    raise
            counts["wrong"] += _SECRET in told or not all(character.isprintable() for character in told)
    del folder
    return counts


def _ask_chat(address: str) -> None:
    client = openai_client(address.partition("#")[0], 1.0, 0)
    if is_local(address):  # another address is not for this machine to try
        client.models.list()


def _ask_search(address: str) -> None:
    search = HttpSearch(address, timeout=1.0, retries=0, cache_size=0)
    if is_local(address):
        search.search(["q"], 1)


_ASKED = {"chat": _ask_chat, "search": _ask_search}
