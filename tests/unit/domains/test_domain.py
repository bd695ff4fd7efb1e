"""A domain without a tool; what is recorded of a domain, and what is refused."""

import asyncio
import json
import threading
from dataclasses import replace

import pytest

from hiexp_verl.cli import main
from hiexp_verl.config import HiExpConfig
from hiexp_verl.distil.distillers import open_distiller
from hiexp_verl.distil.merge import merge_heks
from hiexp_verl.distil.pipeline import distil
from hiexp_verl.domains import DOMAINS, domain_named
from hiexp_verl.domains.search import SEARCH
from hiexp_verl.errors import HiExpError
from hiexp_verl.guide.episode import Guidance
from hiexp_verl.guide.guide import Guide
from hiexp_verl.hek import HEK, Retriever
from hiexp_verl.hek.opening import open_hek
from hiexp_verl.importers import FORMATS
from hiexp_verl.models.chat import Reply
from hiexp_verl.models.encoder import HashEncoder
from hiexp_verl.rollout.as_trained import as_trained
from hiexp_verl.rollout.episode import EpisodeSettings, Players, episode
from tests.support.factories import entry, hek_of, question
from tests.support.sums import PLACE, SUMS

QUESTION = question("q1", "What is 17 + 25?", ("42",))
ENCODER = HashEncoder()


class Says:
    """Says one thing, and remembers the options of the request."""

    model = "says"

    def __init__(self, text, finish="stop"):
        self.text, self.finish, self.asked = text, finish, []

    async def chat(self, messages, **options):
        self.asked.append((messages, options))
        return Reply(self.text, self.finish, 5)


def play(client, guide=None):
    return asyncio.run(episode(QUESTION, Players(client, None, guide, domain=SUMS), EpisodeSettings()))


@pytest.mark.parametrize(
    ("text", "finish", "stop", "prediction", "correct"),
    [
        ("7 + 5 is 12, so \\boxed{42}.", "stop", "answer", "42", True),
        ("\\boxed{41}, no: \\boxed{42.0}", "stop", "answer", "42.0", True),
        ("It is 42.", "stop", "no_answer", "", False),
        ("7 + 5 is", "length", "length", "", False),
        ("<search> 17 + 25 </search> \\boxed{42}", "stop", "answer", "42", True),  # words like any other
    ],
)
def test_without_a_tool_an_episode_is_one_turn(text, finish, stop, prediction, correct):
    client = Says(text, finish)
    t = play(client)
    assert [m["role"] for m in t.messages] == ["system", "user", "assistant"] and t.messages[-1]["content"] == text
    assert (t.extra["stop"], t.prediction, t.correct, t.extra["domain"]) == (stop, prediction, correct, "sums")
    ((messages, options),) = client.asked
    assert messages[0]["content"] == "Add. Write the sum in \\boxed{}." and "stop" not in options


def rollouts():
    asked = [question(f"q{i}", f"What is {i} + 25?", (str(i + 25),)) for i in range(1, 4)]
    played = []
    for each in asked:
        for sample, said in enumerate((each.answers[0], "-" + each.answers[0])):
            client = Says(f"\\boxed{{{said}}}")
            played.append(asyncio.run(episode(each, Players(client, None, domain=SUMS), EpisodeSettings(), sample)))
    return played


def test_a_build_asks_the_domain_of_its_distiller():
    with open_distiller("rules", domain=SUMS) as distiller:
        hek = distil(rollouts(), distiller, ENCODER).hek
    assert hek.header.domain == "sums"
    (case,) = (each for each in hek.entries if each.level == "e1")  # "-26" is not 26: the failures count, as sums are compared
    assert (case.title, case.findings, case.counters) == ("What is some number + some number?", ("slip",), {"merged": 2})
    assert case.description == "Add the units first, and carry what is over ten."
    guide = Guide(Retriever(hek, ENCODER), Guidance(domain=SUMS))
    client = Says("\\boxed{42}")
    play(client, guide)
    assert "Add column by column from the right." in client.asked[0][0][0]["content"]


def test_a_text_that_a_domain_lacks_is_named(tmp_path):
    with pytest.raises(HiExpError, match=r"the domain sums has no distil_e1\.txt, .* among its texts, which --distiller files:"):
        open_distiller(f"files:{tmp_path}", domain=SUMS).__enter__()
    other = replace(SUMS, texts={**SUMS.texts, "rules_e2.jsonl": '{"shape": "compare", "title": "", "text": ""}'})
    with (
        open_distiller("rules", domain=other) as distiller,
        pytest.raises(HiExpError, match=r"rules_e2\.jsonl of the domain sums has no rule"),
    ):
        distil(rollouts(), distiller, ENCODER)


def test_a_tool_that_raises_is_a_failed_call():
    def broken(use):
        raise RuntimeError("no such device")

    assert SEARCH.tool is not None
    domain = replace(SUMS, tool=replace(SEARCH.tool, answer=broken))
    client = Says("<search> x </search>")
    t = asyncio.run(episode(QUESTION, Players(client, None, domain=domain), EpisodeSettings(max_searches=1)))
    assert t.extra["failed_searches"] == 1 and "The search failed (tool error)" in t.messages[3]["content"]


@pytest.mark.parametrize("blocks", [True, False])
def test_a_score_that_may_block_is_made_beside_the_loop(blocks):
    threads = []

    def slow(*arguments):
        threads.append(threading.current_thread() is threading.main_thread())
        return SUMS.score(*arguments)

    domain = replace(SUMS, score=slow, score_blocks=blocks)
    assert asyncio.run(episode(QUESTION, Players(Says("\\boxed{42}"), None, domain=domain), EpisodeSettings())).correct
    assert threads == [not blocks]


@pytest.mark.parametrize(("arm", "shown"), [("full", ["e2", "e1"]), ("prompt", ["e2"]), ("e2", ["e2"]), ("tool", ["e1"]), ("none", [])])
def test_without_a_tool_the_prompt_shows_one_e1_too(arm, shown):
    entries = [
        entry("e1-a", "e1", "What is ... + ...?", "Carry what is over ten."),
        entry("e1-b", "e1", "What is ... + ... ?", "Add the units first."),
        entry("e1-c", "e1", "What is ... + ...", "Search again.", when=("repeated",)),
        entry("e2-a", "e2", "Sums", "Add column by column.", children=("e1-a", "e1-b", "e1-c")),
    ]
    client = Says("\\boxed{42}")
    t = play(client, Guide(Retriever(hek_of(entries, ENCODER), ENCODER), Guidance(arm=arm, domain=SUMS)))
    system = client.asked[0][0][0]["content"]
    assert [row["level"] for row in t.extra["shown"]] == shown and {row["place"] for row in t.extra["shown"]} <= {"prompt"}
    assert ("Add column by column." in system, "Carry what is over ten." in system) == ("e2" in shown, "e1" in shown)
    assert "units" not in system and "again" not in system, "one E1, and none whose precondition only a search could meet"


def test_the_search_domain_leaves_no_trace_in_a_header():
    hek = hek_of([entry()], ENCODER)
    other = replace(hek, header=replace(hek.header, domain="sums"))
    assert hek.content_hash() != other.content_hash()
    assert "domain" not in json.dumps(SEARCH.mark) and SUMS.mark == {"domain": "sums"}


@pytest.fixture
def saved(tmp_path):
    """A HEK of sums, on disk."""
    hek = hek_of([entry()], ENCODER)
    replace(hek, header=replace(hek.header, domain="sums")).save(tmp_path / "hek")
    return tmp_path / "hek"


def test_a_hek_of_another_domain_is_opened_only_where_it_is_asked_for(saved):
    assert HEK.load(saved).header.domain == "sums"
    with pytest.raises(HiExpError, match=r"is of the domain sums, the questions are of search; .*hiexp\.other_domain=true"):
        open_hek(HiExpConfig(hek=str(saved)))
    assert open_hek(HiExpConfig(hek=str(saved), other_domain=True)) is not None
    assert open_hek(HiExpConfig(hek=str(saved), domain=PLACE)) is not None


def test_heks_of_two_domains_are_merged_only_where_it_is_asked_for(saved):
    one, other = hek_of([entry("e1-b", title="another", description="Do something else.")], ENCODER), HEK.load(saved)
    with pytest.raises(HiExpError, match="the first HEK is of the domain search, the second of sums"):
        merge_heks(one, other, ENCODER)
    assert merge_heks(one, other, ENCODER, other_domain=True).header.domain == "search"
    assert merge_heks(other, one, ENCODER, other_domain=True).header.domain == "sums"


def test_the_word_of_a_hek_is_not_imported(saved, capsys):
    hek = HEK.load(saved)
    replace(hek, header=replace(hek.header, domain=PLACE)).save(saved)
    assert main(["retrieve", str(saved), "What is 1 + 1?", "--encoder", "hash:256"]) == 2
    assert f"the HEK is of the domain '{PLACE}', which is not one of ours" in capsys.readouterr().err
    assert main(["retrieve", str(saved), "What is 1 + 1?", "--encoder", "hash:256", "--domain", PLACE]) == 0


def test_a_checkpoint_says_its_domain_but_names_no_code(tmp_path, caplog):
    (tmp_path / "actor" / "huggingface").mkdir(parents=True)
    (tmp_path / "hiexp").mkdir()
    given = dict.fromkeys(("format", "max_searches", "max_tokens", "top_k", "max_words", "max_chars", "corpus", "hek", "domain"))
    given["search"] = "bm25"

    def state(**identity):
        (tmp_path / "hiexp" / "state.json").write_text(json.dumps({"played": {}, "identity": {"enabled": True, **identity}}))

    state()
    assert as_trained(str(tmp_path), given)["domain"] == "search"
    state(domain=PLACE)
    with pytest.raises(HiExpError, match="which is not one of ours; give --domain package"):
        as_trained(str(tmp_path), given)
    state(domain="sums")
    assert as_trained(str(tmp_path), {**given, "domain": PLACE})["domain"] == PLACE and "trained in the domain" not in caplog.text
    assert as_trained(str(tmp_path), {**given, "domain": "search"})["domain"] == "search"
    assert "was trained in the domain sums, and plays in search" in caplog.text


def test_imported_transcripts_are_scored_as_the_domain_does():
    row = {"messages": [{"role": "user", "content": "What is 17 + 25?"}, {"role": "assistant", "content": "\\boxed{42.0}"}], "answer": "42"}
    t = FORMATS["openai"]()(row, domain=SUMS)
    assert t.correct and t.extra == {"domain": "sums"}
    assert not FORMATS["openai"]()(row).correct, "as words 420 is not 42"
    dumped = {"input": "user\nWhat is 17 + 25?\nassistant\n", "output": "\\boxed{42.0}", "gts": "42", "score": 1.0, "step": 3}
    t = FORMATS["verl-dump"]()(dumped, domain=SUMS)
    assert t.correct and t.extra == {"domain": "sums", "step": 3}


def test_a_corpus_is_for_a_domain_with_a_tool(capsys):
    arguments = ["rollout", "--questions", "q.jsonl", "--model", "http://127.0.0.1:9/v1", "--out", "x", "--domain", PLACE]
    assert main([*arguments, "--corpus", "c.jsonl"]) == 2
    assert "--corpus is for a domain with a tool, and sums has none" in capsys.readouterr().err


def test_no_other_domain_takes_the_name_of_ours():
    assert domain_named("search") is SEARCH and set(DOMAINS) >= {"search"}
    with pytest.raises(HiExpError, match="has the name 'search', which is taken"):
        domain_named("tests.unit.domains.test_domain:SEARCH_AGAIN")


SEARCH_AGAIN = replace(SUMS, name="search")
