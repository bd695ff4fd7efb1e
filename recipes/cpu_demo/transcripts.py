"""Transcripts of the known hops: what a model that searches well would have written, in the agent's own text format."""

import random
from collections.abc import Sequence

from hiexp_verl.config import StartConfig, StepConfig
from hiexp_verl.run.guide import Guide, rough_tokens
from hiexp_verl.run.protocol import THINK_CLOSE, THINK_OPEN, Format, first_messages, render_documents, write_answer, write_call
from hiexp_verl.search import SearchEngine
from hiexp_verl.types import Entry, Hit, Level, Message, Passage, Question

FORMAT: Format = "search_tags"

# A few wordings each, so that the trained model keeps choices to sample from. Every thought names what it is about:
# with vaguer ones ("I found it: ...") the model answers after the first search.
_FIRST = (
    "The question does not name the country. I search for it first.",
    "First I need to know which country this is.",
    "I do not know the country yet, so I look it up first.",
)
_NEXT = (
    "The country is {bridge}. Now I need its {goal}.",
    "The country is {bridge}. Next I search for its {goal}.",
    "It is {bridge}. I still need the {goal} of {bridge}.",
)
_LAST = (
    "The {goal} of {bridge} is {answer}.",
    "Now I know the {goal} of {bridge}: {answer}.",
)

# What experience looks like. A small model that has never seen such a block is thrown by it (measured: 0.69 of the
# episodes correct without, 0.17 with), so every second transcript shows one and goes on as a good search does.
_LESSONS: dict[Level, tuple[str, ...]] = {
    "e3": (
        "Resolve the described thing to a name first, then ask for its property under that name; one fact a search.",
        "Trust passages, not memory, and do not stop before a passage states the answer.",
    ),
    "e2": (
        "Find out first the name of what is described, then search with that name for what is asked.",
        "Ask for one fact a query, not for the whole question. Answer with exactly what was asked for, no more and no less.",
    ),
    "e1": (
        "Settle the country first, then search for what is asked under its name.",
        "Take the answer from a passage about that very country, and write it as the passage does.",
        "Answer with what was asked for alone: no addition, no second name, no explanation.",
    ),
}


def transcripts_of(
    questions: Sequence[Question], search: SearchEngine, limit: int, seed: int, top_k: int, max_words: int, max_chars: int
) -> list[list[Message]]:
    """Return at most `limit` transcripts, of the first questions whose hops find every country and the answer."""
    draw = random.Random(seed)
    found: list[list[Message]] = []
    for question in questions:
        if len(found) == limit:
            break
        if not question.meta.get("hops"):
            continue  # not a question whose hops are known
        lessons = _lessons(draw) if len(found) % 2 else []
        messages = _transcript(question, search, draw, top_k, max_words, max_chars, lessons)
        if messages is not None:
            found.append(messages)
    return found


def _transcript(
    question: Question, search: SearchEngine, draw: random.Random, top_k: int, max_words: int, max_chars: int, lessons: Sequence[Hit]
) -> list[Message] | None:
    hops, bridges = question.meta["hops"], question.meta["bridge"]
    goal = "year of independence" if question.meta["goal"] == "independence" else question.meta["goal"]
    rankings = search.search(hops, top_k)
    wanted = [*((bridge,) for bridge in bridges), question.answers]
    guide = Guide(StartConfig(), StepConfig(), rough_tokens)
    messages, _ = guide.at_start(first_messages(question.question, FORMAT), lessons)
    for number, (hop, ranking) in enumerate(zip(hops, rankings, strict=True)):
        passages = [passage for passage, _ in ranking]
        if not _mentions(passages, wanted[number]):
            return None
        # Between two countries the next thing to find is the neighbour, after the last one the goal.
        target = goal if number == len(hops) - 1 else "only neighbour"
        thought = draw.choice(_FIRST) if number == 0 else draw.choice(_NEXT).format(bridge=bridges[number - 1], goal=target)
        messages.append(_assistant(thought, write_call(hop, FORMAT)))
        # After some searches only, as in an episode: a lesson is shown where the query is like its title.
        block, _ = guide.at_search(lessons if draw.random() < 0.5 else [])
        messages.append({"role": "tool", "content": render_documents(passages, FORMAT, max_words, max_chars) + block})
    answer = next(answer for answer in question.answers if _mentions([p for p, _ in rankings[-1]], (answer,)))
    messages.append(_assistant(draw.choice(_LAST).format(goal=goal, answer=answer, bridge=bridges[-1]), write_answer(answer)))
    return messages


def _lessons(draw: random.Random) -> list[Hit]:
    """Draw one lesson of each level, in the form in which retrieval would find them."""
    return [Hit(Entry(level, level, "", draw.choice(texts)), 1.0) for level, texts in _LESSONS.items()]


def _assistant(thought: str, act: str) -> Message:
    return {"role": "assistant", "content": f"{THINK_OPEN}{thought}{THINK_CLOSE}\n{act}"}


def _mentions(passages: Sequence[Passage], texts: Sequence[str]) -> bool:
    return any(text in passage.text for text in texts for passage in passages)
