"""Selection by value: the ranks by hand, what explores and what does not, and the file beside the versions."""

import json
from dataclasses import replace

import numpy as np
import pytest

from hiexp_verl.config import Budgets, PromptConfig, ToolConfig
from hiexp_verl.errors import HiExpError
from hiexp_verl.guide.guide import Guide
from hiexp_verl.guide.lookup import ExperienceRequest, Lookup
from hiexp_verl.guide.select import FEATURES, Known, Model, Values, choose, features, values_for
from hiexp_verl.hek import HEK, Retriever
from hiexp_verl.models.encoder import HashEncoder
from hiexp_verl.types import Hit
from tests.support.factories import entry, hek_of

ENTRIES = [entry(f"e1-{name}", title=f"capital of a country {name}", description=f"Search {name} first.") for name in "abc"]
HITS = [Hit(each, score) for each, score in zip(ENTRIES, (0.9, 0.8, 0.7), strict=True)]
GOOD, BAD = Known(100, 0.2, 0.1), Known(100, -0.2, -0.1)
KNOWN = {ENTRIES[0].content_id: BAD, ENTRIES[1].content_id: GOOD}
TAU = tuple(float(i == 4) for i in range(FEATURES))  # the value of an entry is its effect
FLAT = ((0.0,) * FEATURES,) * FEATURES
WIDE = tuple(map(tuple, np.diag([0.0] * 4 + [1.0] + [0.0] * 3).tolist()))  # of the weight of the effect


def chosen(select="linucb", draw="", top_k=1, covariance=FLAT, mean=TAU):
    return choose(HITS, select, Model(mean, covariance), KNOWN, top_k, 0.6, draw)


def test_the_features_of_an_entry():
    x_F = features(replace(ENTRIES[0], description="x" * 350), 0.9, 0.6, Known(np.e - 1, 0.2, 0.1))
    assert x_F == pytest.approx([1, 0.3, 0, 1, 0.2, 0.06, 0.1, 1.0])
    assert features(ENTRIES[0], 0.9, 0.6, None)[3:7] == pytest.approx([0, 0, 0, 0]), "nothing is known"
    assert features(replace(ENTRIES[0], level="e3"), 0.9, 0.6, None)[2] == 2


def test_the_best_value_comes_first_and_what_is_worth_nothing_is_not_shown():
    (best,) = chosen()
    assert (best.entry, best.value, best.p) == (ENTRIES[1], pytest.approx(0.2), 1.0), "the nearest harms, of the third nothing is known"
    assert choose([], "linucb", Model(TAU, FLAT), KNOWN, 1, 0.6, "") == []


def test_linucb_adds_what_is_not_known_in_training_alone():
    assert [hit.entry.id for hit in chosen(covariance=WIDE, draw="1/q1/tool")] == ["e1-b"], "0.2 + 0.2; the first has -0.2 + 0.2"
    unknown = tuple(map(tuple, np.diag([0.09] + [0.0] * 7).tolist()))
    assert [(hit.entry.id, round(hit.value, 6)) for hit in chosen(covariance=unknown, draw="1/q1/tool")] == [
        ("e1-b", 0.5),
        ("e1-c", 0.3),
        ("e1-a", 0.1),
    ]
    assert [hit.entry.id for hit in chosen(covariance=unknown)] == ["e1-b"]


def test_thompson_draws_once_for_the_rollouts_of_a_question_and_says_how_likely_the_choice_was():
    wide = tuple(map(tuple, (0.25 * np.eye(FEATURES)).tolist()))
    draws = [chosen("thompson", f"1/q{i}/tool", covariance=wide) for i in range(200)]
    assert draws == [chosen("thompson", f"1/q{i}/tool", covariance=wide) for i in range(200)], "replayed"
    firsts = [found[0] for found in draws if found]
    assert {hit.entry.id for hit in firsts} == {"e1-a", "e1-b", "e1-c"} and len(firsts) < 200, "sometimes nothing is worth it"
    share = np.mean([bool(found) and found[0].entry == ENTRIES[1] for found in draws])
    p = np.mean([hit.p for hit in firsts if hit.entry == ENTRIES[1]])
    assert share == pytest.approx(p, abs=0.12) and all(0 < hit.p <= 1 for hit in firsts)


def lookup(values, **settings):
    encoder = HashEncoder(64)
    return Lookup(Retriever(hek_of(ENTRIES, encoder), encoder), PromptConfig(), ToolConfig(min_score=-1.0, **settings), values=values)


def test_a_look_up_selects_by_value_where_the_arm_shows_what_was_found():
    values = Values({"tool": Model(TAU, FLAT)}, KNOWN)
    request = ExperienceRequest("tool", "capital of a country a")
    (nearest,) = lookup(values).now(request)
    assert nearest.entry.id == "e1-a" and nearest.value is None, "cosine is the default"
    (best,) = lookup(values, select="linucb").now(request)
    assert best.entry.id == "e1-b" and best.score < nearest.score
    assert lookup(None, select="linucb").now(request) == [nearest], "without values the cosine selects"
    (wrong,) = lookup(values, select="linucb").now(replace(request, arm="random"))
    assert wrong.value is None


def test_an_episode_shows_the_best_by_value_and_notes_its_probability(tmp_path):
    encoder = HashEncoder(64)
    values = Values({"tool": Model(TAU, FLAT)}, KNOWN)
    budgets = Budgets(tool=ToolConfig(min_score=-1.0, select="linucb", top_k=2))
    root = tmp_path / "hek"
    hek = HEK.load(hek_of(ENTRIES, encoder).save(root))
    assert values_for(root, hek.header.content_hash, budgets) is None
    values.save(root, hek.header.content_hash)
    guide = Guide.open(root, "hash:64", tool=budgets.tool)
    episode = guide.begin("What is the capital of France?")
    assert "Search b first." in episode.tool("capital of a country a", "documents")
    assert [(row["entry"], row["p"]) for row in episode.shown] == [("e1-b", 1.0)]
    assert values_for(root, hek.header.content_hash, Budgets()) is None, "the cosine needs none"


def test_values_come_back_as_they_were_and_damage_is_one_line(tmp_path):
    encoder = HashEncoder(64)
    version = hek_of(ENTRIES, encoder).save(tmp_path / "hek")
    values = Values({"tool": Model(TAU, WIDE, 300)}, KNOWN)
    path = values.save(version, "abc")
    assert Values.load(version, "abc") == values and Values.load(version, "other") is None
    for text, says in (
        ("{", "is damaged"),
        (json.dumps({"places": {}, "known": {}, "more": 1}), "more"),
        (json.dumps({"places": {"tool": {"mean": [1.0], "covariance": [[1.0]]}}, "known": {}}), "other features"),
    ):
        path.write_text(text)
        with pytest.raises(HiExpError, match=says):
            Values.load(version, "abc")
