"""No E1, and no quote in it, tells the answer of its own question, whatever the answer is and however it is written."""

import re
from dataclasses import replace

from hypothesis import example, given
from hypothesis import strategies as st

from hiexp_verl.distil.draft import Draft
from hiexp_verl.distil.pipeline import DistilSettings, distil
from hiexp_verl.distil.rules import RulesDistiller
from hiexp_verl.errors import HiExpError
from hiexp_verl.models.encoder import HashEncoder
from hiexp_verl.scoring import cem, normalise
from hiexp_verl.text import content_words
from tests.support.episodes import episode

ENCODER = HashEncoder(64)
# Latin with accents, Cyrillic; also words that entries are full of, and numbers.
WORDS = st.one_of(
    st.text("abcdefghijklmnopqrstuvwxyz\u00e9\u00fc\u00f1\u00f8", min_size=3, max_size=9).map(str.capitalize),
    st.text("\u0430\u0431\u0432\u0433\u0434\u0435\u0436\u0437\u0438\u043a", min_size=3, max_size=9).map(str.capitalize),
    st.from_regex(r"\A[A-Z][a-z]{1,4}[-'./&][A-Za-z]{1,5}\.?\Z"),
    st.integers(0, 2100).map(str),
    st.sampled_from(["search", "country", "capital", "the", "second", "answer", "question"]),
)
ANSWERS = st.lists(WORDS, min_size=1, max_size=3).map(" ".join).filter(normalise)
PEAKS = ("Noshak", "Gerlach", "Elbrus")
# How a careless model might write an answer.
SPELT = (
    str,
    str.upper,
    str.lower,
    "the {}".format,
    '"{}"'.format,
    "({})".format,
    "{}'s".format,
    lambda answer: answer.replace(" ", "-"),
    lambda answer: answer.replace(" ", " the "),
    lambda answer: answer.replace(" ", " - "),
    "_{}_".format,
    lambda answer: answer.replace(" ", "  _"),
)


class Telltale(RulesDistiller):
    """Writes what the rules write, and adds the answer to title and description."""

    def __init__(self, answer_of, spell):
        self._answer_of, self._spell = answer_of, spell

    def reflect(self, diagnoses):
        told = [self._spell(self._answer_of[d.question_id]) for d in diagnoses]
        drafts = zip(super().reflect(diagnoses), told, strict=True)
        return [
            Draft(f"{draft.title} Like {answer}", f"{answer}: {draft.description} It was {answer}.", draft.kind) for draft, answer in drafts
        ]


def played(number, gold, accepted):
    """Two successes, the second in other words, and three unlike failures, one of which had the answer on its screen."""
    peak = PEAKS[number]
    question = f"What is the capital of the country whose highest point is {peak}?"
    fields = {"question_id": peak, "question": question, "answers": (gold,)}
    first = (f"{peak} country", f'Doc 1(Title: "{peak}") {peak} is a mountain in Ruritania.')
    last = ("capital of Ruritania", f'Doc 1(Title: "Ruritania") Its capital is {gold}. Others say {accepted}, near {gold}.')
    return [
        episode(first, last, answer=gold, number=0, **fields),
        replace(episode(first, last, first, answer=accepted, number=1, **fields), correct=True, score=1.0),
        episode(first, answer="Zenda Nowhere", number=2, **fields),
        episode(first, last, answer="Strelsau Nowhere", number=3, **fields),
        episode(answer="Hentzau Nowhere", number=4, **fields),
    ]


def holds(text, answer):
    """Whether the text has the answer's words in a row, by the scorer's rules or by plain splitting: not by the code under test."""
    words = [" ".join(w for w in re.split(r"[\W_]+", each.lower()) if w not in ("", "a", "an", "the")) for each in (text, answer)]
    return cem(text, [answer]) == 1.0 or bool(words[1] and f" {words[1]} " in f" {words[0]} ")


def told_answers(answers, spell, which):
    """Build from one question for each (gold, accepted) and return what entries tell of their questions' answers, and all E1."""
    trajectories = [t for number, (gold, accepted) in enumerate(answers) for t in played(number, gold, accepted)]
    distiller = Telltale({PEAKS[number]: pair[which] for number, pair in enumerate(answers)}, spell)
    # An accepted spelling of function words alone ("name") stays, for any advice is full of them; a gold answer does not.
    secrets = {PEAKS[number]: (gold, accepted) if content_words(accepted) else (gold,) for number, (gold, accepted) in enumerate(answers)}
    entries = [e for e in distil(trajectories, distiller, ENCODER, DistilSettings(cases_per_question=3)).hek.entries if e.level == "e1"]
    asked = {t.question_id: t.question for t in trajectories}
    texts = [(e.questions[0], f"{e.title}\n{e.description}") for e in entries]
    texts += [(quote.trajectory.partition("#")[0], quote.quote) for e in entries for quote in e.evidence]
    # "the answer" stands where an answer was taken out.
    blank = [(question, re.sub(r"(?<![^\W_])the answer(?![^\W_])", "", text, flags=re.IGNORECASE)) for question, text in texts]
    return [
        (secret, text)
        for question, text in blank
        for secret in secrets[question]
        if holds(text, secret) and not holds(asked[question], secret)
    ], entries


@given(st.lists(st.tuples(ANSWERS, ANSWERS), min_size=1, max_size=3), st.sampled_from(SPELT), st.sampled_from((0, 1)))
@example([("Aab the Aaa", "Aaa Aaa")], lambda answer: answer.replace(" ", " the "), 0)  # two articles in a row
@example([("Aaa", "Name")], str, 0)  # a function word, and one of the advice
@example([("Aaa", "answer")], "_{}_".format, 0)  # the word that stands in place of an answer
def test_no_e1_tells_the_answer_of_its_own_question(answers, spell, which):
    try:
        told, entries = told_answers(answers, spell, which)
    except HiExpError as error:  # all refused: what was left of the answer made them speak of one case
        assert "no experience" in str(error)
    else:
        assert entries and told == []


def test_what_a_distiller_told_is_taken_out_and_the_advice_stays():
    for which in (0, 1):
        told, entries = told_answers([("Kabul", "Cabool City")], str.upper, which)
        assert told == [] and entries
        assert all(" the answer" in f"{e.title} {e.description}".lower() and len(e.description) > 60 for e in entries)
        assert any("the answer" in quote.quote for e in entries for quote in e.evidence)
