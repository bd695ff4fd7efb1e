"""Questions in everyday words: the corpus answers in its own, and what is held out is in no transcript."""

from itertools import chain

import pytest

from hiexp_verl.config import HiExpConfig, SearchConfig
from hiexp_verl.io.files import cache_dir
from hiexp_verl.models.encoder import HashEncoder
from hiexp_verl.search.bm25 import BM25Search
from hiexp_verl.types import FOUND, GIVEN, Plan
from recipes.cpu_demo.plans import right_plans
from recipes.cpu_demo.stages import balanced, kinds_of
from recipes.cpu_demo.transcripts import transcripts_of
from recipes.demo_data.assets import ASSETS, is_complete
from recipes.demo_data.factbook.countries import read_countries
from recipes.demo_data.factbook.lay_words import GOALS, HELD_OUT, KEYS, WARM, lay_passages, lay_questions
from tests.support.factories import entry, hek_of

pytestmark = pytest.mark.assets
FACTBOOK = cache_dir() / "factbook"


@pytest.fixture(scope="module")
def bed():
    if not is_complete(FACTBOOK, ASSETS["factbook"]):
        pytest.skip("the factbook is not in the cache")
    countries = read_countries(FACTBOOK)
    questions = {wording: lay_questions(countries, GOALS, wording) for wording in ("lay", "plain")}
    return questions, BM25Search(lay_passages(countries))


def hit_rate(search, queries, questions):
    found = search.search(queries, 2)
    return sum(any(a in p.text for p, _ in hits for a in q.answers) for hits, q in zip(found, questions, strict=True)) / len(questions)


@pytest.mark.parametrize("name", HELD_OUT)
def test_the_words_of_the_corpus_find_the_fact_and_everyday_words_do_not(bed, name):
    questions, search = bed
    goal = HELD_OUT[name]
    questions = [q for q in questions["lay"] if q.meta["goal"] == name][:60]
    lay = [goal.lay[int(q.meta["wording"][-1])].format(c=q.meta["bridge"][-1]) for q in questions]
    assert hit_rate(search, lay, questions) <= 0.25
    assert max(hit_rate(search, [words.format(q.meta["bridge"][-1]) for q in questions], questions) for words in goal.searches) >= 0.65


def test_no_question_names_its_answer_and_no_country_is_in_two_splits(bed):
    questions = bed[0]["lay"]
    assert len({q.id for q in questions}) == len(questions) > 20_000
    assert not [q.id for q in questions if any(answer.lower() in q.question.lower() for answer in q.answers[:1])]
    splits = {}
    for q in questions:
        assert splits.setdefault(q.meta["bridge"][-1], q.meta["split"]) == q.meta["split"]
    assert not WARM.keys() & HELD_OUT.keys()


def test_a_transcript_finds_everything_and_says_nothing_that_is_held_out(bed):
    of_wording, search = bed
    questions = [q for each in of_wording.values() for q in each if q.meta["split"] == "train" and q.meta["goal"] in WARM]
    transcripts = transcripts_of(
        questions, search, 30, HiExpConfig(seed=0, search=SearchConfig(top_k=2, max_words_per_passage=32, max_chars=1200))
    )
    assert len(transcripts) == 30
    held_out = [words.replace("{}", "").strip() for words in chain.from_iterable(goal.searches for goal in HELD_OUT.values())]
    for messages in transcripts:
        own = "".join(m["content"] for m in messages if m["role"] == "assistant")
        assert not [words for words in held_out if words in own]
    assert 12 <= sum("<experience>" in messages[0]["content"] for messages in transcripts) <= 22
    assert {len(messages) for messages in transcripts} == {7, 9}, "two searches or three"
    assert all(key.phrase.count("{key}") == 1 for key in KEYS.values())


def test_a_plan_is_right_where_its_searches_find_the_answer_for_most_countries(bed):
    questions, search = bed
    goal, key = HELD_OUT["agriculture"], KEYS["capital"]
    asked = [q for q in questions["plain"] if q.meta["family"] == "capital > agriculture"]
    kind = "What is the first of the agricultural products of the country whose capital is ...?"
    plans = {
        "right": Plan(kind, (key.searches[0].format(GIVEN), goal.searches[0].format(FOUND))),
        "wrong": Plan(kind, (key.searches[0].format(GIVEN), "anthem of the name found")),
        "short": Plan(kind, (key.searches[0].format(GIVEN),)),
        "unknown": Plan("What is ...?", (key.searches[0].format(GIVEN), goal.searches[0].format(FOUND))),
    }
    hek = hek_of([entry(name, "e2", plans=(plan,)) for name, plan in plans.items()], HashEncoder(64))
    assert right_plans(hek, asked, search, 2) == {"right": True, "wrong": False, "short": False, "unknown": False}


def test_questions_are_chosen_by_kind_in_turn(bed):
    questions = bed[0]["plain"]
    kinds = kinds_of(questions, 2)
    assert kinds == ["capital > agriculture", "capital > airports"]
    assert [q.meta["family"] for q in balanced(questions, kinds, 5)] == [*kinds, *kinds, kinds[0]]
