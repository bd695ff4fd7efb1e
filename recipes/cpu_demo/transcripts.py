"""Transcripts that teach a small model to search and to read experience, in the agent's own text format.

Three in five show a block with one plan, and search in the plan's words. Those words cannot be written without reading them: most
have an extra word in a place of chance, and the question is often in everyday words, which find nothing. One block in seven holds
the plan of another question; the transcript passes over it. Transcripts without a plan search in the question's own words.
"""

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from hiexp_verl.config import HiExpConfig, PromptConfig
from hiexp_verl.guide.blocks import add_to_system, beside_documents, fit_block, rough_tokens
from hiexp_verl.masking import kind_of
from hiexp_verl.protocol import THINK_CLOSE, THINK_OPEN, Format, first_messages, render_documents, write_answer, write_call
from hiexp_verl.search import SearchEngine
from hiexp_verl.types import FOUND, GIVEN, Entry, Hit, Level, Message, Plan, Question
from recipes.cpu_demo.plans import mention, names_of, queries_of, wanted_by
from recipes.demo_data.factbook.lay_words import KEYS, WARM, country_phrase

FORMAT: Format = "search_tags"
THREE_STEPS = 0.25  # of the transcripts
GUIDED = 0.6  # of the transcripts show a block
RIGHT_PLAN = 6 / 7  # of the blocks hold the plan for the question
EXTRA_WORD = 0.6  # of the plans
WITH_CASE = 0.3  # of the searches of guided transcripts show an E1
_TRIES = 20  # for each transcript: some searches do not find what they should

# A few wordings each, so that the trained model keeps choices to sample from. Every thought says what it is about: with vaguer ones
# ("I found it: ...") the model answers after the first search.
_FIRST = (
    "The question does not name the country. I search for it first.",
    "First I need to know which country this is.",
    "I do not know the country yet, so I look it up first.",
)
# The next search is quoted as it stands in the plan or in the question's words; then the name is put in: two easy copies, not a hard one.
_NEXT = ('The country is {bridge}. Next search: "{search}".', 'It is {bridge}. Next search: "{search}".')
_LAST = ("For {bridge} it says {answer}.", "This is about {bridge}: {answer}.")
_EXTRA = ("facts", "records", "overview", "data", "report", "summary", "list", "entry", "details", "page", "notes", "figures", "topic")
_CASES = (
    "As soon as a passage states what is asked for, write it as a short answer in the answer tags.",
    "Read every retrieved passage to its end before answering, and take the answer from the one about the very thing asked about.",
    "Answer with what was asked for alone: no addition, no second name, no explanation.",
)


@dataclass(frozen=True)
class _Lesson:
    """What one transcript is about."""

    question: Question
    searches: Sequence[str]  # "..." for the name in the question in the first, the name found in the others
    shown: Plan | None = None


def transcripts_of(questions: Sequence[Question], search: SearchEngine, limit: int, config: HiExpConfig) -> list[list[Message]]:
    """Return `limit` transcripts, fewer where the questions do not give as many; every goal about as often.

    `questions` are of `lay_words` with goals of `WARM`, in both wordings; seed, search and tool of `config` as in the episodes that follow.
    """
    draw = random.Random(config.seed)
    pools: dict[tuple[bool, bool, str], list[Question]] = {}
    for question in questions:
        pools.setdefault((_is_plain(question), len(question.meta["keys"]) > 1, question.meta["goal"]), []).append(question)
    found: list[list[Message]] = []
    for _ in range(_TRIES * limit):
        if len(found) == limit:
            break
        lesson = _lesson(questions, pools, draw)
        messages = _transcript(lesson, search, config, draw) if lesson else None
        found += [messages] if messages else []
    return found


def _lesson(
    questions: Sequence[Question], pools: Mapping[tuple[bool, bool, str], Sequence[Question]], draw: random.Random
) -> _Lesson | None:
    """Draw a question of one of the goals, and whether it is guided, and rightly; None where there is no such question."""
    guided = draw.random() < GUIDED
    right = guided and draw.random() < RIGHT_PLAN
    # Everyday words need a plan: without one, no search in the question's words would find the answer.
    plain = not right or draw.random() < 0.3
    pool = pools.get((plain, draw.random() < THREE_STEPS, draw.choice(sorted(WARM))))
    if not pool:
        return None
    question = draw.choice(pool)
    if right:
        plan = _plan(question, draw)
        return _Lesson(question, plan.searches, plan.made_for(question.meta["name"]))
    others = [q for q in draw.sample(questions, min(12, len(questions))) if q.meta["family"] != question.meta["family"]]
    other = draw.choice(others) if guided and others else None
    shown = _plan(other, draw).made_for(question.meta["name"]) if other else None
    return _Lesson(question, _searches([KEYS[key].searches[0] for key in question.meta["keys"]], question), shown)


def _is_plain(question: Question) -> bool:
    return question.meta["wording"].startswith("plain")


def _plan(question: Question, draw: random.Random) -> Plan:
    """Return a plan for questions of this kind; most have an extra word somewhere."""
    ways = [draw.choice(KEYS[key].searches) for key in question.meta["keys"]]
    searches = _searches(ways, question, draw.choice(WARM[question.meta["goal"]].searches))
    if draw.random() < EXTRA_WORD:
        place, extra = draw.randrange(len(searches)), draw.choice(_EXTRA)
        searches[place] = f"{extra} {searches[place]}" if draw.random() < 0.5 else f"{searches[place]} {extra}"
    # The plan may be of the same question in other words, as the best entry of a look-up may be.
    return Plan(_plain_kind(question) if draw.random() < 0.5 else kind_of(question.question), tuple(searches))


def _plain_kind(question: Question) -> str:
    """Return the kind of question in the words of the corpus."""
    country = country_phrase(question.meta["keys"], GIVEN).replace('"', "")
    return WARM[question.meta["goal"]].plain.format(c=country)


def _searches(ways: Sequence[str], question: Question, last: str = "") -> list[str]:
    """Return the searches to the country and the last one; without it, that of one who takes the words of the question."""
    last = last or WARM[question.meta["goal"]].searches[0]
    return [each.format(FOUND if number else GIVEN) for number, each in enumerate((*ways, last))]


def _transcript(lesson: _Lesson, search: SearchEngine, config: HiExpConfig, draw: random.Random) -> list[Message] | None:
    """Return the transcript, None where a search does not find its thing."""
    question, queries, names = lesson.question, queries_of(lesson.searches, lesson.question), names_of(lesson.question)
    reading, tool = config.search, config.tool
    rankings = search.search(queries, reading.top_k)
    wanted = wanted_by(question)
    block = fit_block("prompt", _hits("e2", lesson.shown.sentence if lesson.shown else ""), PromptConfig().max_tokens, rough_tokens)
    messages = add_to_system(first_messages(question.question, FORMAT), block)
    for number, (query, ranking) in enumerate(zip(queries, rankings, strict=True)):
        passages = [passage for passage, _ in ranking]
        if not mention(passages, wanted[number]):
            return None
        then = draw.choice(_NEXT).format(bridge=names[number], search=lesson.searches[number])
        messages.append(_assistant(then if number else draw.choice(_FIRST), write_call(query, FORMAT)))
        case = draw.choice(_CASES) if lesson.shown and draw.random() < WITH_CASE else ""
        before, after = beside_documents(fit_block("tool", _hits("e1", case), tool.max_tokens, rough_tokens), tool.position)
        documents = render_documents(passages, FORMAT, reading.max_words_per_passage, reading.max_chars)
        messages.append({"role": "tool", "content": before + documents + after})
    answer = next(answer for answer in question.answers if mention([p for p, _ in rankings[-1]], (answer,)))
    messages.append(_assistant(draw.choice(_LAST).format(answer=answer, bridge=names[-1]), write_answer(answer)))
    return messages


def _hits(level: Level, text: str) -> list[Hit]:
    """Return an entry as a look-up would find it, none without a text."""
    return [Hit(Entry(level, level, level, text), 1.0)] if text else []


def _assistant(thought: str, act: str) -> Message:
    return {"role": "assistant", "content": f"{THINK_OPEN}{thought}{THINK_CLOSE}\n{act}"}
