"""A constitution is chosen by cover, effect and tokens, and is the same text for every question."""

from dataclasses import replace

import pytest

from hiexp_verl.cli import main
from hiexp_verl.config import ToolConfig
from hiexp_verl.errors import HiExpError
from hiexp_verl.guide.constitution import chosen
from hiexp_verl.guide.guide import Guide
from hiexp_verl.hek import HEK
from hiexp_verl.hek.opening import remember_encoder
from hiexp_verl.ledger.rows import LEDGER, LedgerRow, append_rows
from hiexp_verl.models.encoder import HashEncoder
from hiexp_verl.types import Plan
from tests.support.factories import entry, hek_of

ENCODER = HashEncoder(64)


def advice(characters):
    """Return a text whose line, "- " and a line break included, has so many characters: 3.5 of them are a token."""
    return "x" * (characters - 3)


def pattern(number, questions, characters=35, **fields):
    return entry(f"e2-{number}", "e2", f"kind {number}", f"{number}{advice(characters - 1)}", questions=tuple(questions.split()), **fields)


WIDE = pattern(1, "q1 q2 q3 q4")  # 4 questions in 10 tokens
NARROW = pattern(2, "q3 q4 q5 q6")  # as many, two of them new after the first
LONG = pattern(3, "q1 q2 q3 q4 q5 q6 q7 q8", 350)  # 8 in 100
ALONE = pattern(4, "q9")
CASE = entry("e1-1", questions=("q1", "q2"))
BANK = hek_of([CASE, LONG, NARROW, WIDE, ALONE], ENCODER)


def ids(entries):
    return [each.id for each in entries]


def test_the_next_entry_adds_the_most_questions_for_a_token():
    # 4/10 and 4/10 and 8/100: of equal ones the first in the HEK, e2-2. Then e2-1 adds q1, q2: 2/10; e2-3 adds q1, q2, q7, q8: 4/100.
    # Then e2-3 adds q7, q8. An E1 has no place in the system prompt; e2-4 rests on one question.
    assert ids(chosen(BANK, 300)) == ["e2-2", "e2-1", "e2-3"]


def test_what_the_budget_has_no_room_for_is_left_out():
    # The block of e2-1 and e2-2 has 2 + 12 + 1 + 31 + 1 + 34 + 1 + 34 + 1 + 13 = 130 characters, which are 38 tokens.
    assert ids(chosen(BANK, 38)) == ["e2-2", "e2-1"]
    assert ids(chosen(BANK, 37)) == ["e2-2"]
    assert chosen(BANK, 20) == []


def test_an_effect_weighs_the_questions_and_what_harms_is_left_out():
    effects = {WIDE.content_id: 0.1, LONG.content_id: 0.6, NARROW.content_id: -0.2}
    # 0.1 x 4/10 = 0.04 and 0.6 x 8/100 = 0.048; then e2-1 adds no question and comes in the second cover.
    assert ids(chosen(BANK, 300, effects)) == ["e2-3", "e2-1"]
    assert chosen(BANK, 300, {}) == [], "nothing is shown to help"


@pytest.fixture
def root(tmp_path):
    planned = replace(WIDE, description=(plan := Plan("capital of ...", ("... capital",))).sentence, plans=(plan,))
    hek_of([CASE, planned, NARROW], ENCODER).save(tmp_path / "hek")
    remember_encoder(tmp_path / "hek", "hash:64")
    return tmp_path / "hek"


def test_the_arm_shows_the_same_text_for_every_question(root, capsys):
    with pytest.raises(HiExpError, match=r"nothing is; run `hiexp constitution .*hek` first"):
        Guide.open(root, arm="constitution")
    assert main(["constitution", str(root), "--tokens", "300"]) == 0
    text = capsys.readouterr().out.split("\n\n")[0]
    assert "chosen by cover alone" not in text and text.startswith("<experience>")
    guide = Guide.open(root, arm="constitution", tool=ToolConfig(min_score=-1.0))
    for question in ("What is the capital of Peru?", "Who wrote it?"):
        episode = guide.begin(question)
        (system, _) = episode.system([{"role": "user", "content": question}])
        assert system["content"] == text, "no name of the question is put into a plan"
        assert [row["entry"] for row in episode.shown] == ["e2-2", "e2-1"]
        assert episode.tool("capital", "documents") == "documents"
    assert len(guide.settings()["constitution"]) == 2, "a resumed run notices another one"


def test_the_command_weighs_by_the_ledger_where_there_is_one(root, capsys):
    good, bad = (next(e for e in HEK.load(root).entries if e.id == name) for name in ("e2-1", "e2-2"))
    exposure = {"level": "e2", "place": "prompt", "score": 0.5, "p": 1.0}
    rows = []
    for group in range(40):
        seen = [(good, 1.0), (bad, 0.0)][group % 2]
        rows.append(LedgerRow(1, f"g{group}", 0, "v", "none", 0.5))
        rows.append(LedgerRow(1, f"g{group}", 1, "v", "full", seen[1], ({**exposure, "content": seen[0].content_id},)))
    append_rows(root / LEDGER / "run.jsonl", rows)
    assert main(["constitution", str(root)]) == 0
    out = capsys.readouterr().out
    assert "e2-1: about" in out and "chosen by cover and effect" in out, "e2-2 harms"
    assert main(["constitution", str(root), "--tokens", "5"]) == 2
    assert "fits 5 tokens; raise --tokens" in capsys.readouterr().err
