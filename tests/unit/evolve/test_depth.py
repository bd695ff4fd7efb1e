"""Options of `hiexp evolve`: revision of what lost narrowly, drafts that are screened, thin kinds first; each resumes to the same."""

from dataclasses import replace

import pytest

from hiexp_verl.config import Budgets, GateConfig, SearchConfig, ToolConfig
from hiexp_verl.distil.distillers import PromptedDistiller
from hiexp_verl.distil.draft import Draft
from hiexp_verl.distil.replies import ModelReplies, StoredReplies
from hiexp_verl.distil.rules import RulesDistiller
from hiexp_verl.domains.diagnosis import Contrast
from hiexp_verl.domains.search.diagnose import diagnose
from hiexp_verl.errors import HiExpError
from hiexp_verl.evolve.asked import Thinnest
from hiexp_verl.evolve.evolve import HEK_FOLDER, _manifest
from hiexp_verl.evolve.propose import Proposer
from hiexp_verl.evolve.refine import losing
from hiexp_verl.evolve.spec import EvolveSpec
from hiexp_verl.evolve.table import as_markdown
from hiexp_verl.hek.versions import versions
from hiexp_verl.ledger.rows import LedgerRow, read_ledger
from hiexp_verl.report.evolutions import Evolution, evolutions
from hiexp_verl.types import Question
from tests.support.episodes import QUESTION, episode, two_hops
from tests.support.factories import entry, hek_of
from tests.support.peaks import ENCODER, KIND, evolved, start
from tests.support.scripted_distiller import GOOD, Scripted
from tests.support.two_kinds import BOTH, CITY_KIND, MISLEADING, Misled, Writing, empty

PLAN_OF_CITIES = 'For "What is the largest city'
BETTER = Draft("Another title", "Search for the country first, then search for its largest city by name.", "guide")
NEVER = GateConfig(rule="strict", min_groups=6, z=6.0)  # finds no difference
AT_LOOK_UPS = Budgets(tool=ToolConfig(min_score=0.3))


def of_cities(draft, diagnosis):
    return "largest city" in diagnosis.question


def first_draft(draft, diagnosis):
    return draft == 0


def played(out, **more):
    return evolved(
        out, **{"client": Misled(PLAN_OF_CITIES), "hek": empty(), "questions": BOTH, "mask": 0.0, "gate": GateConfig("strict", 8), **more}
    )


def test_what_lost_in_a_candidate_leaves_it_and_the_rest_is_accepted(tmp_path):
    _, second, third = played(tmp_path / "out", refine=True)
    assert second.verdict.decision == "no difference" and len(second.proposal.came) == 5
    (lost,) = second.lost
    assert lost.description.startswith(PLAN_OF_CITIES) and lost.why == "lost 0.550 in 18 groups, standard error 0.096"
    assert {c.content for c in third.proposal.came} == {c.content for c in second.proposal.came} - {lost.content}
    assert third.accepted and third.rewards["candidate"] > third.rewards["incumbent"] + 0.5
    assert f"- `lost` E2 **{CITY_KIND}**" in as_markdown([second])
    assert "lost 0.550 in 18 groups" in evolutions([Evolution("run", [second.to_json()])])


def test_without_it_a_candidate_is_turned_down_as_a_whole(tmp_path):
    _, second, third = played(tmp_path / "out")
    assert second.verdict.decision == "no difference" and not second.lost and "lost" not in second.to_json()
    assert third.candidate is None


def test_an_e1_that_lost_is_rewritten_by_what_its_own_rollouts_did(tmp_path):
    writer = Writing(of_cities, BETTER)
    out = tmp_path / "out"
    _, second, third = played(out, client=Misled(MISLEADING), gate=NEVER, budgets=AT_LOOK_UPS, refine=True, writer=writer)
    (lost,), (new,) = second.lost, second.rewritten
    assert lost.description.endswith(MISLEADING) and (new.title, new.description) == (lost.title, BETTER.description)
    ((asked, failures),) = writer.revised
    assert asked.content_id == lost.content and {d.question_id[0] for d in failures} == {"c"} and len(failures) == 3
    assert new.content in {c.content for c in third.proposal.came} and lost.content not in {c.content for c in third.proposal.came}
    assert third.rewards["candidate"] > second.rewards["candidate"] + 0.2


def test_the_best_draft_of_a_screening_is_tested_on_other_questions(tmp_path):
    more = {"client": Misled(MISLEADING, everywhere=True), "gate": GateConfig("strict", 6), "distiller": "openai:URL", "screen": 6}
    _, second, third = played(tmp_path / "out", drafts=2, writer=Writing(first_draft), budget_rollouts=400, **more)
    assert [(each.version, each.rollouts) for each in second.drafts] == [("0002", 12), ("0003", 12)]
    assert second.drafts[0].reward < 0.2 < second.drafts[1].reward and second.candidate == "0003" and second.accepted
    rows = [row for row in read_ledger(tmp_path / "out" / HEK_FOLDER) if row.step == 2]
    assert len(rows) == second.rollouts == 24 + 6 * second.verdict.groups and len({row.key for row in rows}) == len(rows)
    groups = {row.group for row in rows if row.arm == "none"}
    assert len({row.group for row in rows} - groups) == 6, "questions of the screening are not those of the test"
    assert "Drafts, by mean reward: 0002 0.1" in as_markdown([second]) and second.rollouts + third.rollouts < 400
    assert "drafts by mean reward: 0002 0.1" in evolutions([Evolution("run", [second.to_json()])])


@pytest.mark.parametrize("stop_after", [100, 420, 700])
def test_killed_and_resumed_with_all_of_them_it_comes_to_the_same(tmp_path, stop_after):
    more = {"refine": True, "explore": True, "drafts": 2, "screen": 4, "distiller": "openai:URL", "gate": NEVER, "budgets": AT_LOOK_UPS}

    def run(name, client):
        return played(tmp_path / name / "out", client=client, writer=Writing(of_cities, BETTER), **more)

    whole = run("whole", Misled(MISLEADING))
    with pytest.raises(HiExpError, match="the server has stopped"):
        run("killed", Misled(MISLEADING, stop_after=stop_after))
    assert [each.to_json() for each in run("killed", Misled(MISLEADING))] == [each.to_json() for each in whole]
    whole_hek, resumed_hek = (tmp_path / name / "out" / HEK_FOLDER for name in ("whole", "killed"))
    assert [(v.name, v.content_hash) for v in versions(resumed_hek)] == [(v.name, v.content_hash) for v in versions(whole_hek)]
    assert read_ledger(resumed_hek) == read_ledger(whole_hek)


def test_thin_kinds_come_first_and_of_them_what_is_now_and_then_right():
    known = entry("e2-0001", "e2", KIND, "Plan.", questions=("q1", "q2", "q3"))
    new = entry("e2-0002", "e2", "Who directed the film ...?", "Plan.", questions=("f1",))
    ask = [Question(f"a{i}", KIND.replace("...", f"Mount {name}"), ("x",)) for i, name in enumerate(("Adok", "Bedok", "Cedok", "Dedok"))]
    films = [Question(f"b{i}", f'Who directed the film "{name}"?', ("x",)) for i, name in enumerate(("Red Sun", "Dry Moon", "Old Star"))]
    asked = Thinnest([*ask, *films], 0, ENCODER)
    rewards = {"b0": (1.0, 1.0), "b1": (1.0, 0.0), "a0": (0.0, 0.0)}
    rows = [LedgerRow(1, group, i, "", "none", r) for group, pair in rewards.items() for i, r in enumerate(pair)]
    asked.begin(hek_of([known, new], ENCODER), rows)
    first = [q.id for q in asked.take(2)]
    assert set(first) == {"b1", "b2"}, "one question is behind films and three behind peaks; b0 was always right"
    assert {q.id for q in asked.take(9)} == {"b0", "a0", "a1", "a2", "a3"}, "no question comes twice in a round"
    asked.begin(hek_of([known, new], ENCODER), rows)
    assert asked.take(1)[0].id in {"b1", "b2"}, "1 + 3 are behind films now, 3 + 4 behind peaks"


def test_an_entry_lost_where_its_own_rollouts_earned_less_by_more_than_a_standard_error():
    def group(name, seen, reward):
        shown = ({"content": "0a", "level": "e1", "place": "tool", "score": 0.9, "p": 1.0},) if seen else ()
        return [LedgerRow(1, name, 0, "old", "full", 0.8), LedgerRow(1, name, 1, "new", "full", reward, shown)]

    rows = [*group("q1", True, 0.2), *group("q2", True, 0.4), *group("q3", False, 1.0)]
    found = losing(rows, "old", "new", ["0a", "0b"])
    # Differences -0.6 and -0.4: mean -0.5; the weights are 1/2: error sqrt((0.05^2 + 0.05^2 + (0.5 * 0.5)^2)) / 1.
    assert set(found) == {"0a"} and (found["0a"].groups, found["0a"].difference) == (2, pytest.approx(-0.5))
    assert found["0a"].error == pytest.approx((2 * 0.05**2 + 0.25**2) ** 0.5)
    assert losing([*group("q1", True, 0.2)], "old", "new", ["0a"]) == {}, "of one group the error is not known"


def test_a_model_is_asked_for_an_entry_anew_without_names_and_its_answer_passes_the_gates():
    failure = episode(("Noshak highest point country", "peak"), answer="Tehran")
    diagnosis = diagnose(Contrast("q1", QUESTION, ("Kabul",), (two_hops(number=1),), (failure,)))[0]
    lost = entry(title="A fact about a country", description="Answer at once.")
    replies = Scripted([{**GOOD, "description": "The answer is Kabul, search for it by name."}], [GOOD])
    assert PromptedDistiller(replies).revise([(lost, [diagnosis])]) == [Draft(**GOOD)]
    ((prompt,), _) = replies.asked
    assert "(A fact about a country) Answer at once." in prompt and "What went wrong" in prompt
    assert "Noshak" not in prompt and "Kabul" not in prompt


def test_every_draft_of_a_model_draws_answers_of_its_own_and_counts_them_together():
    stored = StoredReplies()
    seeds = []

    class Model(Scripted):
        def complete(self, conversations, *, seed, on_reply, **more):
            seeds.append((seed, more["temperature"]))
            return super().complete(conversations, seed=0, on_reply=on_reply, **more)

    failure = episode(("Noshak highest point country", "peak"), answer="Tehran")
    diagnosis = diagnose(Contrast("q1", QUESTION, ("Kabul",), (two_hops(number=1),), (failure,)))[0]
    distiller = PromptedDistiller(ModelReplies(Model([GOOD]), "m", stored))
    for draft in (0, 1, 2, 1):
        distiller.again(draft).reflect([diagnosis])
    assert seeds == [(0, 0.0), (2, 0.7), (4, 0.7)] and distiller.usage.calls == 3 and distiller.usage.stored == 1


def test_drafts_need_a_model_and_a_resume_the_same_options(tmp_path):
    files = {"questions": tmp_path / "q", "out": tmp_path / "o", "hek": tmp_path / "h", "search": SearchConfig(corpus="c.jsonl")}
    with pytest.raises(HiExpError, match="--drafts needs a distiller that draws"):
        EvolveSpec(model="DIR", drafts=2, **files)
    spec = EvolveSpec(model="DIR", **files)
    hek = start()
    assert not {"refine", "explore", "drafts", "screen"} & set(_manifest(spec, hek).spec), "as before where they are off"
    _manifest(replace(spec, refine=True), hek).finish(spec.out)
    with pytest.raises(HiExpError, match="was made with refine = True, now it is None"):
        _manifest(replace(spec, resume=True), hek)


def test_a_model_that_does_not_answer_ends_it_in_one_line_and_costs_no_rollouts(tmp_path):
    class Gone(Scripted):
        def reply(self, *_, **__):
            raise HiExpError("the server does not answer")

    asked, gone = empty(), PromptedDistiller(Gone())
    with pytest.raises(HiExpError, match="the server does not answer"):
        evolved(tmp_path / "out", hek=asked, writer=gone)
    assert len(read_ledger(tmp_path / "out" / HEK_FOLDER)) == 4 * 12, "those of the first round; a resumed run has them"


def test_entries_that_rest_on_rejected_ones_alone_are_nothing_to_propose():
    new = hek_of([entry("e1-0001"), entry("e2-0001", "e2", children=("e1-0001",), description="Another.")], ENCODER)
    proposer = Proposer(ENCODER, RulesDistiller())
    assert proposer._chosen(new, start(), frozenset({new.entries[0].content_id})) is None
