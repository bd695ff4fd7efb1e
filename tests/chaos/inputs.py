"""Rows and replies with changed values, given to every reader."""

import json
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx

from hiexp_verl.domains.search import SEARCH
from hiexp_verl.importers import FORMATS
from hiexp_verl.importers.bank import BANKS
from hiexp_verl.io.datasets import passage_of, read_corpus, read_questions, trajectory_of
from hiexp_verl.io.questions import question_of
from hiexp_verl.models.chat_replies import names_in, reply_of
from hiexp_verl.protocol import FORMATS as DIALECTS
from hiexp_verl.protocol import find_search, searches
from hiexp_verl.scoring import score
from hiexp_verl.search.http import HttpSearch
from hiexp_verl.types import to_json
from tests.chaos.counting import Counts, counted
from tests.chaos.strange import mutated, strange
from tests.support.episodes import trajectories

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


def _readers() -> dict[str, Callable[[dict[str, Any]], Any]]:
    formats = {f"import {name}": lambda row, make=make: _searched(make()(row)) for name, make in FORMATS.items()}
    banks = {f"bank {name}": lambda row, read=read: list(read(row)) for name, read in BANKS.items()}
    return {"question": question_of, "passage": passage_of, "trajectory": trajectory_of, **formats, **banks}


def _searched(trajectory: Any) -> None:
    searches(trajectory.messages)
    SEARCH.final_answer(trajectory.messages)
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
        row = strange(_ROWS[chance.choice(_FITTING[name])] if chance.random() < 0.9 else chance.choice(_ROWS), chance)
        with counted(counts, "read", f"{name}: {row!r}"):
            readers[name](row if isinstance(row, dict) else {"value": row})
    for read, rows in ((read_questions, _ROWS[:2]), (read_corpus, _ROWS[2:3])):
        content = "".join(json.dumps(row) + "\n" for row in rows).encode()
        for number in range(rounds // 20):
            path = folder / f"rows.{chance.choice(('jsonl', 'json', 'tsv', 'parquet'))}"
            path.write_bytes(mutated(content, chance))
            with counted(counts, "read", f"{read.__name__}: {path.read_bytes()!r}"):
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
        body = json.dumps(strange(_GOOD, chance)).encode()
        return httpx.Response(
            chance.choice((200, 200, 200, 204, 302, 404, 413, 429, 500)), content=mutated(body, chance), headers=chance.choice(heads)
        )

    client._client = httpx.Client(transport=httpx.MockTransport(answer))
    good = {"choices": [{"message": {"content": "me", "tool_calls": None}, "finish_reason": "stop"}], "usage": {"completion_tokens": 1}}
    for number in range(rounds):
        client._closed_until = 0.0  # the breaker is another matter
        with counted(counts, "read", "reply"):
            if number % 2:
                ((ranking,)) = client.search(["q"], 3)
                counts["wrong"] += not all(isinstance(value, float) and value == value for _, value in ranking)
            else:
                body = strange(good, chance)
                names_in(body, "http://x") if number % 8 == 0 else reply_of(
                    construct_type(type_=ChatCompletion, value=body), ["x"], "http://x"
                )
    del folder
    return counts
