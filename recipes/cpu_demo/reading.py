"""Transcripts that teach a small model to search and to read experience, in the agent's own text format.

Two in three show a block with one plan, and search in the plan's words. Those words cannot be written without reading them: most
have an extra word in a place of chance, and the question is often in everyday words, which find nothing. One block in seven holds
the plan of another question; the transcript passes over it. Transcripts without a plan search in the question's own words.
"""

import random
from collections.abc import Sequence

from hiexp_verl.config import PromptConfig, ToolConfig
from hiexp_verl.guide.blocks import add_to_system, beside_documents, fit_block, rough_tokens
from hiexp_verl.protocol import first_messages, render_documents, write_answer, write_call
from hiexp_verl.search import SearchEngine
from hiexp_verl.types import FOUND, GIVEN, Message, Plan, Question
from recipes.cpu_demo.transcripts import FIRST_THOUGHTS, FORMAT, assistant, entries_of, mentions
from recipes.demo_data.factbook.lay_words import KEYS, WARM

THREE_STEPS = 0.33  # of the transcripts
GUIDED = 2 / 3  # of the transcripts show a block
RIGHT_PLAN = 6 / 7  # of the blocks hold the plan for the question
EXTRA_WORD = 0.6  # of the plans

# A few wordings each, so that the trained model keeps choices to sample from.
_NEXT = ("It is {bridge}. Now I search for the {target}.", "The country is {bridge}. Next I need the {target}.")
_FOLLOW = (
    "The country is {bridge}. I follow the lesson.",
    "It is {bridge}. Next comes the search of the lesson.",
    "The country is {bridge}. I search as the lesson says.",
)
_LAST = ("For {bridge} it says {answer}.", "This is about {bridge}: {answer}.")
_EXTRA = ("facts", "records", "overview", "data", "report", "summary", "list", "entry", "details", "page", "notes", "figures", "topic")
_CASES = (
    "As soon as a passage states what is asked for, write it as a short answer in the answer tags.",
    "Read every retrieved passage to its end before answering, and take the answer from the one about the very thing asked about.",
    "Answer with what was asked for alone: no addition, no second name, no explanation.",
)


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
    """Return `limit` transcripts, fewer where the questions do not give as many; every goal about as often.

    `questions` are of `lay_words` with goals of `WARM`, in both wordings.
    """
    draw = random.Random(seed)
    pools: dict[tuple[bool, bool, str], list[Question]] = {}
    for question in questions:
        key = (question.meta["wording"].startswith("plain"), len(question.meta["keys"]) > 1, question.meta["goal"])
        pools.setdefault(key, []).append(question)
    found: list[list[Message]] = []
    for _ in range(20 * limit):
        if len(found) == limit:
            break
        guided = draw.random() < GUIDED
        right = guided and draw.random() < RIGHT_PLAN
        # Everyday words need a plan: without one, no search in the question's words would find the answer.
        pool = pools.get((not right or draw.random() < 0.3, draw.random() < THREE_STEPS, draw.choice(sorted(WARM))))
        if not pool:
            continue
        question = draw.choice(pool)
        other = draw.choice([q for q in draw.sample(questions, 12) if q.meta["family"] != question.meta["family"]])
        shown = [_plan(question, draw)] if right else [_plan(other, draw)] if guided else []
        searches = shown[0].searches if right else _own_words(question)
        messages = _transcript(question, shown, searches, right, search, (top_k, max_words, max_chars), tool or ToolConfig(), draw)
        if messages is not None:
            found.append(messages)
    return found


def _own_words(question: Question) -> tuple[str, ...]:
    """Return the searches of one who takes the words of the question."""
    goal = WARM[question.meta["goal"]]
    return (*(KEYS[key].searches[0] for key in question.meta["keys"]), goal.searches[0])


def _plan(question: Question, draw: random.Random) -> Plan:
    """Return a plan for questions of this kind, `{}` in its searches; most have an extra word somewhere."""
    goal = WARM[question.meta["goal"]]
    searches = [draw.choice(KEYS[key].searches) for key in question.meta["keys"]] + [draw.choice(goal.searches)]
    if draw.random() < EXTRA_WORD:
        place, extra = draw.randrange(len(searches)), draw.choice(_EXTRA)
        searches[place] = f"{extra} {searches[place]}" if draw.random() < 0.5 else f"{searches[place]} {extra}"
    return Plan(question.question.replace(question.meta["name"], GIVEN).replace('"', ""), tuple(searches))


def _transcript(
    question: Question,
    shown: Sequence[Plan],
    searches: Sequence[str],
    follows: bool,
    search: SearchEngine,
    limits: tuple[int, int, int],
    tool: ToolConfig,
    draw: random.Random,
) -> list[Message] | None:
    """Return the transcript of these searches, None where one does not find its thing; `limits` are top_k, max_words, max_chars."""
    top_k, max_words, max_chars = limits
    names = (question.meta["name"], *question.meta["bridge"])
    queries = [each.format(name) for each, name in zip(searches, names, strict=True)]
    rankings = search.search(queries, top_k)
    wanted = [*((bridge,) for bridge in question.meta["bridge"]), question.answers]
    plans = [Plan(p.question, tuple(s.format(names[0] if i == 0 else FOUND) for i, s in enumerate(p.searches))) for p in shown]
    block = fit_block("prompt", entries_of("e2", [p.sentence for p in plans]), PromptConfig().max_tokens, rough_tokens)
    messages = add_to_system(first_messages(question.question, FORMAT), block)
    for number, (query, ranking) in enumerate(zip(queries, rankings, strict=True)):
        passages = [passage for passage, _ in ranking]
        if not mentions(passages, wanted[number]):
            return None
        # One who follows a plan does not name what is asked for: these words would then be what it searches with.
        target = WARM[question.meta["goal"]].noun if number == len(queries) - 1 else question.meta["keys"][number]
        then = draw.choice(_FOLLOW if follows else _NEXT).format(bridge=names[number], target=target)
        thought = then if number else draw.choice(FIRST_THOUGHTS)
        messages.append(assistant(thought, write_call(query, FORMAT)))
        case = entries_of("e1", [draw.choice(_CASES)]) if shown and draw.random() < 0.3 else []
        before, after = beside_documents(fit_block("tool", case, tool.max_tokens, rough_tokens), tool.position)
        messages.append({"role": "tool", "content": before + render_documents(passages, FORMAT, max_words, max_chars) + after})
    answer = next(answer for answer in question.answers if mentions([p for p, _ in rankings[-1]], (answer,)))
    messages.append(assistant(draw.choice(_LAST).format(answer=answer, bridge=names[-1]), write_answer(answer)))
    return messages
