"""Transcripts of the known hops: what a model that searches well would have written, in the agent's own text format.

Most of them show experience. A small model that has never seen such a block is thrown by it; one that has seen only blocks that say
what it would have done anyway learns to pass over them (benchmarks/LOG.md). So a block here holds plans, in other words each time,
and the transcript searches in the words of the one for its kind of question, if it is there.
"""

import random
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from hiexp_verl.config import PromptConfig, ToolConfig
from hiexp_verl.distil.plan import FOUND, GIVEN
from hiexp_verl.guide.blocks import add_to_system, beside_documents, fit_block, rough_tokens
from hiexp_verl.protocol import THINK_CLOSE, THINK_OPEN, Format, first_messages, render_documents, write_answer, write_call
from hiexp_verl.search import SearchEngine
from hiexp_verl.types import Entry, Hit, Level, Message, Passage, Plan, Question

FORMAT: Format = "search_tags"
WITH_RIGHT_PLAN = 0.8  # of the blocks, which two of three transcripts have
_DRAWS = 4  # of other words, where some do not find what they should

# A few wordings each, so that the trained model keeps choices to sample from. Every thought names what it is about:
# with vaguer ones ("I found it: ...") the model answers after the first search.
FIRST_THOUGHTS = (
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

# Words to search with; the first ones are those of the question's own hops, the others are used only where a plan has them.
_KEYS = {
    "capital": (
        "{} capital of which country",
        "which country has the capital {}",
        "{} is the capital of",
        "country with the capital {}",
        "{} capital city country",
        "what country is {} the capital of",
    ),
    "highest point": (
        "{} highest point country",
        "which country has the highest point {}",
        "{} is the highest point of",
        "country whose highest point is {}",
        "{} mountain country",
        "where does {} lie",
    ),
    "anthem": ("{} national anthem country", "country with the national anthem {}", "{} is the anthem of"),
    "only neighbour": ("{} shares a land border with", "countries that border {}", "land borders of {}"),
}
_GOALS = {
    "capital": ("capital of {}", "{} capital", "which city is the capital of {}", "{} capital city"),
    "highest point": ("highest point of {}", "{} highest point", "{} elevation highest point", "highest mountain of {}"),
    "currency": ("currency of {}", "{} currency", "money used in {}", "what is the currency of {}"),
    "independence": ("{} became independent", "independence of {}", "{} year of independence", "when did {} become independent"),
    "internet code": ("internet country code of {}", "{} internet country code", "internet code of {}"),
}

# What else experience says; general advice as a build's rules write it.
_PATTERNS = (
    "Find out first the name of what is described, then search with that name for the {goal}.",
    "Find out first the name of what is described, then search with that name for the fact that is asked for.",
)
_STRATEGY = "Resolve the described thing to a name first, then ask for its property under that name; one fact a search."
_CASES = (
    "Settle the country first, then search for the {goal} under its name.",
    "As soon as a passage states the {goal}, write it as a short answer in the answer tags.",
    "Read every retrieved passage to its end before answering, and take the {goal} from the one about the very thing asked about.",
    "Before answering, hold every condition of the question against the passage that the {goal} was taken from.",
    "Answer with what was asked for alone: no addition, no second name, no explanation.",
)


@dataclass(frozen=True)
class _Known:
    """A question with what each of its searches may be put as, and the names that they are made with, in order."""

    question: Question
    wordings: Sequence[Sequence[str]]
    names: Sequence[str]

    @property
    def kind(self) -> str:
        """The question without its name."""
        return self.question.question.replace(self.names[0], GIVEN).replace('"', "")

    @property
    def goal(self) -> str:
        """What is asked for, in words."""
        return "year of independence" if self.question.meta["goal"] == "independence" else self.question.meta["goal"]


def transcripts_of(
    questions: Sequence[Question],
    search: SearchEngine,
    limit: int,
    seed: int,
    top_k: int,
    max_words: int,
    max_chars: int,
    tool: ToolConfig | None = None,
) -> list[list[Message]]:
    """Return at most `limit` transcripts, of the first questions whose hops find every country and the answer.

    `tool`: where the E1 stand, as in the episodes that follow.
    """
    draw, tool = random.Random(seed), tool or ToolConfig()
    known = list(_known(questions))
    found: list[list[Message]] = []
    for one in known:
        if len(found) == limit:
            break
        others = [other for other in known if other.question.meta["family"] != one.question.meta["family"]]
        for _ in range(_DRAWS):
            messages = _transcript(one, others if len(found) % 3 else None, search, tool, draw, top_k, max_words, max_chars)
            if messages is not None:
                found.append(messages)
                break
    return found


def _known(questions: Sequence[Question]) -> Iterator[_Known]:
    """Yield the questions whose hops are known, and whose first one holds the name in the question."""
    for question in questions:
        if question.meta.get("hops"):
            *keys, goal = question.meta["family"].split(" > ")
            wordings = [*(_KEYS[key] for key in keys), _GOALS[goal]]
            name = re.fullmatch(re.escape(wordings[0][0]).replace(r"\{\}", "(.+)"), question.meta["hops"][0])
            if name and name[1] in question.question:
                yield _Known(question, wordings, (name[1], *question.meta["bridge"]))


def _transcript(
    one: _Known,
    others: Sequence[_Known] | None,
    search: SearchEngine,
    tool: ToolConfig,
    draw: random.Random,
    top_k: int,
    max_words: int,
    max_chars: int,
) -> list[Message] | None:
    """Return a transcript with experience where there are others to take some of it from; None where a search does not find its thing."""
    with_plan = others is not None and draw.random() < WITH_RIGHT_PLAN
    words = [draw.choice(choices) if with_plan else choices[0] for choices in one.wordings]
    queries = [each.format(name) for each, name in zip(words, one.names, strict=True)]
    rankings = search.search(queries, top_k)
    bridges, answers = one.names[1:], one.question.answers
    wanted = [*((bridge,) for bridge in bridges), answers]
    plans = [_pattern(one, words, draw)] if with_plan else []
    start = [] if others is None else _at_start(plans, others, draw)
    block = fit_block("prompt", start, PromptConfig().max_tokens, rough_tokens)
    messages = add_to_system(first_messages(one.question.question, FORMAT), block)
    for number, (query, ranking) in enumerate(zip(queries, rankings, strict=True)):
        passages = [passage for passage, _ in ranking]
        if not mentions(passages, wanted[number]):
            return None
        # Between two countries the next thing to find is the neighbour, after the last one the goal.
        target = one.goal if number == len(queries) - 1 else "only neighbour"
        thought = draw.choice(FIRST_THOUGHTS) if number == 0 else draw.choice(_NEXT).format(bridge=bridges[number - 1], goal=target)
        messages.append(assistant(thought, write_call(query, FORMAT)))
        # After some searches only, as in an episode: a case is shown where the query is like its title.
        case = entries_of("e1", [draw.choice(_CASES).format(goal=one.goal)]) if others is not None and draw.random() < 0.5 else []
        block = fit_block("tool", case[: tool.top_k], tool.max_tokens, rough_tokens)
        documents = render_documents(passages, FORMAT, max_words, max_chars)
        before, after = beside_documents(block, tool.position)
        messages.append({"role": "tool", "content": before + documents + after})
    answer = next(answer for answer in answers if mentions([p for p, _ in rankings[-1]], (answer,)))
    messages.append(assistant(draw.choice(_LAST).format(goal=one.goal, answer=answer, bridge=bridges[-1]), write_answer(answer)))
    return messages


def _at_start(plans: Sequence[str], others: Sequence[_Known], draw: random.Random) -> list[Hit]:
    """Return what a block at the start shows: these patterns among up to two for other kinds of questions, and maybe a strategy."""
    strangers = draw.sample(others, min(len(others), draw.randint(0 if plans else 1, 2)))
    patterns = [*plans, *(_pattern(other, [draw.choice(choices) for choices in other.wordings], draw) for other in strangers)]
    draw.shuffle(patterns)
    return [*entries_of("e3", [_STRATEGY] if draw.random() < 0.3 else []), *entries_of("e2", patterns)]


def _pattern(one: _Known, words: Sequence[str], draw: random.Random) -> str:
    """Return an E2 as a build writes it: advice, and the searches that worked for such a question."""
    searches = [each.format(GIVEN if number == 0 else FOUND) for number, each in enumerate(words)]
    return f"{draw.choice(_PATTERNS).format(goal=one.goal)} {Plan(one.kind, tuple(searches)).sentence}"


def entries_of(level: Level, texts: Sequence[str]) -> list[Hit]:
    """Return entries in the form in which retrieval would find them, the first one the best."""
    return [Hit(Entry(f"{level}-{number}", level, level, text), 1.0 - number / 10) for number, text in enumerate(texts)]


def assistant(thought: str, act: str) -> Message:
    return {"role": "assistant", "content": f"{THINK_OPEN}{thought}{THINK_CLOSE}\n{act}"}


def mentions(passages: Sequence[Passage], texts: Sequence[str]) -> bool:
    return any(text in passage.text for text in texts for passage in passages)
