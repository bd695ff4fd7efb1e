"""Mathematics from rollouts without experience to rollouts with it, by a scripted model behind a server; what is refused."""

import json
import os
import re

import pytest

from hiexp_verl import HEK, EvalSpec, HiExpError, RolloutSpec, build, evaluate, read_trajectories, rollout
from hiexp_verl.cli import main
from hiexp_verl.config import Budgets, SearchConfig, ToolConfig
from hiexp_verl.distil.distillers import open_distiller
from hiexp_verl.distil.draft import Draft
from hiexp_verl.distil.pipeline import DistilSettings, distil
from hiexp_verl.distil.prompts import edit_prompt, examples, reflection_prompt, revision_prompt
from hiexp_verl.distil.validate import admit
from hiexp_verl.domains import domain_named
from hiexp_verl.domains.diagnosis import Contrast
from hiexp_verl.domains.maths import verifier
from hiexp_verl.domains.maths.diagnose import MEANINGS, ProblemMask
from hiexp_verl.domains.maths.domain import MATHS
from hiexp_verl.domains.maths.redact import redact
from hiexp_verl.domains.maths.verifier import Verifier
from hiexp_verl.hek.opening import open_hek
from hiexp_verl.io.files import write_jsonl
from hiexp_verl.models.encoder import HashEncoder
from hiexp_verl.rollout.episode import EpisodeSettings
from hiexp_verl.types import Question
from tests.support.chat_server import completion, server
from tests.support.factories import entry, trajectory
from tests.support.paths import GOLDEN

PEOPLE = ("Ann", "Bob", "Cleo", "Dan", "Eve", "Finn")
ASKED = "{} has {} boxes with {} apples each and gives away {} apples. How many apples are left?"


def problem(row):
    boxes, each, away = row + 3, row + 11, row + 2
    return Question(f"q{row}", ASKED.format(PEOPLE[row], boxes, each, away), (str(boxes * each - away),), {"split": "train"})


def policy():
    """Every second rollout of a problem multiplies wrongly; one that read an entry never does. The last problem asks for a formula."""
    seen: dict[str, int] = {}

    def answer(request, number):
        system, user = request["messages"]
        if "half of" in user["content"]:
            return 200, completion(r"Half of $x$ is \boxed{0.5x}.")
        boxes, each, away = map(int, re.findall(r"\d+", user["content"]))
        careless = "<experience>" not in system["content"]
        seen[user["content"]] = seen.get(user["content"], 0) + careless
        slip = 10 if careless and seen[user["content"]] % 2 == 0 else 0
        had = boxes * each + slip
        return 200, completion(
            f"There were {boxes} * {each} = {had} apples.\n\nThen {had} - {away} = {had - away}.\n\n\\boxed{{{had - away}}}"
        )

    return answer


@pytest.fixture
def sets(tmp_path):
    formula = Question("f", "What is half of $x$?", (r"\frac{x}{2}",))
    write_jsonl(tmp_path / "train.jsonl", map(problem, range(4)))
    write_jsonl(tmp_path / "val.jsonl", [problem(4), problem(5), formula])
    return tmp_path


def spec(url, folder, name, questions, **more):
    return RolloutSpec(
        model=url, domain="maths", search=SearchConfig(), questions=folder / questions, out=folder / name, batch_size=1, k=2, **more
    )


def test_what_failed_without_experience_is_shown_as_advice_afterwards(sets):
    with server(policy()) as (url, requests):
        summary = rollout(spec(url, sets, "rollouts", "train.jsonl"))
        assert summary["correct"] == 0.5 and summary["stops"] == {"answer": 8}
        played = list(read_trajectories(sets / "rollouts" / "trajectories.jsonl"))
        assert {t.extra["domain"] for t in played} == {"maths"} and requests[0]["messages"][0]["content"] == MATHS.system_prompt("hermes")

        hek = build(sets / "rollouts" / "trajectories.jsonl", "hash:256", out=sets / "hek", domain="maths").hek
        assert hek.header.domain == HEK.load(sets / "hek").header.domain == "maths"
        (case,) = (each for each in hek.entries if each.level == "e1")
        assert case.title == "X has N boxes with N apples each and gives away N apples. How many apples are left?"
        assert case.findings == ("arithmetic_slip",) and case.counters == {"merged": 3}
        assert "check every result by the inverse operation" in case.description
        wrong = next(each for each in case.evidence if each.what == "a wrong calculation")
        assert wrong.quote == "There were 3 * 11 = 43 apples."

        del requests[:]
        guided = rollout(spec(url, sets, "guided", "val.jsonl", hek=sets / "hek", budgets=Budgets(tool=ToolConfig(min_score=-1.0))))
        assert guided["correct"] == guided["prompt_hit_rate"] == 1.0, "0.5x is x/2"
        system = requests[0]["messages"][0]["content"]
        if os.environ.get("HIEXP_WRITE_GOLDEN"):
            (GOLDEN / "maths_prompt.txt").write_text(system + "\n", encoding="utf-8")
        assert system == (GOLDEN / "maths_prompt.txt").read_text(encoding="utf-8").removesuffix("\n")

        arms = EvalSpec(
            model=url,
            domain="maths",
            search=SearchConfig(),
            questions=(sets / "val.jsonl",),
            out=sets / "eval",
            batch_size=1,
            hek=sets / "hek",
            arms=("none", "full"),
            seeds=(0, 1),
            alone=0,
            settings=EpisodeSettings(temperature=1.0),
        )
        none, full = evaluate(arms)["arms"]
        assert (none["arm"], none["concise"], full["arm"], full["concise"]) == ("none", pytest.approx(2 / 3), "full", 1.0)
        assert "correct is avg@2" in (sets / "eval" / "table.md").read_text()
    trajectories = str(sets / "rollouts" / "trajectories.jsonl")
    assert main(["inspect", str(sets / "hek"), "e1-0001", "--trajectories", trajectories]) == 0


def test_what_is_of_another_domain_is_refused_unless_it_is_asked_for(sets):
    with server(policy()) as (url, _):
        rollout(spec(url, sets, "rollouts", "train.jsonl"))
        trajectories = sets / "rollouts" / "trajectories.jsonl"
        build(trajectories, "hash:256", out=sets / "hek", domain="maths")
        with pytest.raises(HiExpError, match="8 of 8 trajectories are of the domain maths, the build is of search"):
            build(trajectories, "hash:256")
        config = RolloutSpec(model=url, search=SearchConfig(), questions=sets / "val.jsonl", out=sets / "x", hek=sets / "hek").config()
        with pytest.raises(HiExpError, match="is of the domain maths, the questions are of search"):
            open_hek(config)


def contrast(right, *wrong):
    question, answers = ASKED.format("Ann", 3, 11, 2), ("31",)

    def played(text, number, correct, stop="answer"):
        said = ({"role": "user", "content": question}, {"role": "assistant", "content": text})
        prediction = MATHS.answer_in(text) or ""
        return trajectory("q", correct, said, question=question, prediction=prediction, id=f"q#{number}", extra={"stop": stop})

    failures = tuple(played(text, i, False, stop) for i, (text, stop) in enumerate(wrong, start=1))
    return Contrast("q", question, answers, (played(right, 0, True),), failures)


RIGHT = "3 * 11 = 33 apples.\n\n33 - 2 = 31.\n\n\\boxed{31}"


@pytest.mark.parametrize(
    ("text", "stop", "finding", "advice"),
    [
        ("3 * 11 = 33 apples.", "length", "length_limit", "Keep to one short calculation a step"),
        ("3 * 11 = 33 apples, 31 are left.", "no_answer", "no_boxed_answer", "alone in the box"),
        ("33 - 2 = 31.\n\n31 / 2 = 15.5\n\n\\boxed{15.5}", "answer", "right_value_lost", "Stop as soon as the quantity"),
        ("3 * 11 = 43.\n\n43 - 2 = 41.\n\n\\boxed{41}", "answer", "arithmetic_slip", "inverse operation"),
        ("3 * 11 = 33.\n\n\\boxed{33}", "answer", "unused_condition", "List every number and condition"),
        ("3 + 11 + 2 = 16.\n\n\\boxed{16}", "answer", "unexplained", "Write one sentence for each quantity"),
        ("There are \\boxed{3100}", "answer", "answer_form", "in which unit"),
    ],
)
def test_a_failure_is_advised_by_its_finding(text, stop, finding, advice):
    (diagnosis,) = MATHS.diagnose(contrast(RIGHT, (text, stop)), 2)
    assert diagnosis.finding == finding
    with open_distiller("rules", domain=MATHS) as distiller:
        (draft,) = distiller.reflect([diagnosis])
    admitted = admit(draft, diagnosis, MATHS) if draft is not None else None
    assert isinstance(admitted, Draft) and admitted.description == draft.description and advice in draft.description


def test_a_model_that_distils_reads_both_derivations_from_where_they_part():
    (diagnosis,) = MATHS.diagnose(contrast(RIGHT, ("3 * 11 = 33 apples.\n\n33 + 2 = 35.\n\n\\boxed{35}", "answer")), 2)
    assert diagnosis.part_at == 1
    prompt = reflection_prompt(diagnosis, 0, MATHS)
    assert "The failed attempt made 2 steps: 1) N + N = N.;" in prompt and "Ann" not in prompt and "31" not in prompt
    assert "The first 1 steps were alike" in prompt and MEANINGS["unexplained"] in prompt
    e1 = entry()
    assert all("mathematics" in text for text in (edit_prompt(e1, [e1], MATHS), revision_prompt(e1, [diagnosis], MATHS)))
    assert {each["finding"] for each in examples(MATHS.texts["distil_examples.jsonl"])} <= MEANINGS.keys()


@pytest.mark.parametrize(
    ("text", "answer", "question", "left"),
    [
        ("It is 1,200, or $1200.", "1200", "", "It is the answer, or the answer."),
        (r"Take \frac{3}{4}, 3/4, 0.75 or 75%.", "3/4", "", "Take the answer, the answer, the answer or the answer."),
        ("Five and 5 and -5, not 15 or 0.5.", "-5", "", "the answer and the answer and the answer, not 15 or 0.5."),
        ("Divide by 60.", "60", "He has 60 minutes.", "Divide by 60."),  # the problem gives it
        ("Use x^2+1 here.", "$x^2 + 1$", "", "Use the answer here."),
        ("Check the two sides.", "2", "", "Check the two sides."),
        ("It is an ellipse, or Evelyn.", r"\text{ellipse}", "", "It is the answer, or Evelyn."),
        ("Take forty-two, not forty.", "42", "", "Take the answer, not forty."),
        ("Meet at (3, 4), or (3,4).", r"\left(3,4\right)", "", "Meet at the answer, or the answer."),
        ("Meet at (3, 4).", "(3,4)", "Is it (3, 4)?", "Meet at (3, 4)."),
        ("The angle is \u03c0/2.", r"\frac{\pi}{2}", "", "The angle is the answer."),
    ],
)
def test_an_answer_is_known_in_other_notations(text, answer, question, left):
    assert redact(text, [answer], question) == left


def test_advice_of_a_model_keeps_neither_names_nor_numbers_of_the_problem():
    mask = ProblemMask("Ann has 30 apples and gives 2 away.")
    assert mask.mask_known("Tell Ann to take 30 from 100 by 2.") == "Tell X to take the given number from 100 by 2."
    assert mask.names("Ann and Bob") == ["Ann"]


def test_math_verify_that_is_missing_is_one_line_before_anything_is_played(sets, monkeypatch, capsys):
    monkeypatch.setattr("hiexp_verl.domains.maths.verifier.find_spec", lambda name: None)
    arguments = ["--domain", "maths", "--questions", str(sets / "val.jsonl"), "--model", "http://127.0.0.1:9/v1", "--out", str(sets / "x")]
    assert main(["rollout", *arguments]) == 2
    assert "scoring mathematics needs math-verify, which is not installed; pip install hiexp_verl[maths]" in capsys.readouterr().err
    assert domain_named("maths") is MATHS


def test_math_verify_that_scores_wrongly_is_one_line_before_anything_is_played(sets, monkeypatch, capsys):
    monkeypatch.setattr(Verifier, "_ask", lambda *_: {"equal": False})
    verifier._shared.cache_clear()
    arguments = ["--domain", "maths", "--questions", str(sets / "val.jsonl"), "--model", "http://127.0.0.1:9/v1", "--out", str(sets / "x")]
    assert main(["rollout", *arguments]) == 2
    assert "math-verify does not score as it must" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("one", "other", "same"), [("0.5", r"\frac{1}{2}", True), ("1,000", "1000", True), ("50%", "50", False), ("-5", "5", False)]
)
def test_answers_in_other_notations_are_the_same_answer(one, other, same):
    assert (MATHS.normalise(one) == MATHS.normalise(other)) is same


def test_patterns_by_rules_have_advice_of_their_own_for_each_kind_of_problem():
    """One advice for all stories made near-duplicates of all patterns, and one entry of them."""
    kinds = {
        "percent": "A coat costs {} dollars and is sold with a discount of {}%. What is its price?",
        "part": "Ann has {} pens and Bob has {} times as many. How many pens has Bob?",
        "rate": "Ann runs {} miles per hour for {} hours. How far does she run?",
        "story": "Ann has {} pens and buys {} more. How many pens has she now?",
        "formula": "What is ${} + {}$?",
    }
    wrong = ("I do not know.", "Let me start over. \\boxed{76}", "3 + 4 = 8. \\boxed{78}")
    played = [
        trajectory(
            f"{kind}{n}",
            ok,
            ({"role": "assistant", "content": text},),
            id=f"{kind}{n}#{ok:d}",
            question=asked.format(n + 31, n + 40),
            answers=("77",),
            prediction="77" if ok else "",
        )
        for kind, asked in kinds.items()
        for n, failure in enumerate(wrong)
        for ok, text in ((True, "\\boxed{77}"), (False, failure))
    ]
    with open_distiller("rules", domain=MATHS) as distiller:
        hek = distil(played, distiller, HashEncoder(), DistilSettings(cluster_size=3)).hek
    patterns = [each for each in hek.entries if each.level == "e2"]
    assert {each.shapes for each in patterns} == {(kind,) for kind in kinds}
    assert len({each.description for each in patterns}) == 5


def test_every_finding_has_advice_at_each_level():
    for level in ("e1", "e2", "e3"):
        rules = [json.loads(line) for line in MATHS.texts[f"rules_{level}.jsonl"].splitlines()]
        main_findings = {rule["finding"] for rule in rules if "finding" in rule and "also" not in rule}
        assert main_findings >= MEANINGS.keys() - {"rounded", "unit", "two_answers", "interval", "words", "unreadable"}, level
