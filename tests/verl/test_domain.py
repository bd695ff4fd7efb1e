"""Training in a domain without a tool: one turn, scored by the domain; a tool of somebody's own is refused."""

import json
from dataclasses import replace

import pytest

pytestmark = pytest.mark.verl
pytest.importorskip("verl")

import hydra

from hiexp_verl.cli.doctor import _domain, _safely
from hiexp_verl.config import HiExpConfig
from hiexp_verl.domains.maths.domain import MATHS
from hiexp_verl.domains.search import SEARCH
from hiexp_verl.errors import HiExpError
from hiexp_verl.hek.store import HEK
from hiexp_verl.models.encoder import HashEncoder
from hiexp_verl.plugin.agent_loop import HiExpAgentLoop, settings_of
from hiexp_verl.plugin.checkpoint import identity_of
from hiexp_verl.plugin.dataset import row_of
from hiexp_verl.plugin.monitor import Expectation, Watch
from hiexp_verl.plugin.preflight import check_domain
from hiexp_verl.plugin.reward import compute_score
from hiexp_verl.types import TRAJECTORY_KEY
from tests.support.agent_episodes import config_of, run
from tests.support.factories import entry, hek_of, question
from tests.support.paths import RECIPES
from tests.support.sums import PLACE, SUMS
from tests.support.verl_fixtures import tiny_tokenizer, write_corpus, write_hek

OWN = replace(SUMS, name="own", tool=replace(SEARCH.tool, call_in=lambda text, format: None))
ANSWERED = '<tool_call>\n{"name": "search", "arguments": {"query": "17 + 25"}}\n</tool_call> \\boxed{42.0}'


@pytest.fixture
def paths(tmp_path):
    """A corpus, and a HEK of sums."""
    hek = write_hek(tmp_path / "hek")
    of_search = HEK.load(hek)
    replace(of_search, header=replace(of_search.header, domain="sums")).save(hek)
    return {"corpus": write_corpus(tmp_path / "corpus.jsonl"), "hek": hek}


def test_an_episode_is_one_turn_without_tools_and_scored_by_its_domain(paths):
    config = config_of(paths, "hermes", f"hiexp.domain={PLACE}", "hiexp.search.corpus=null", "hiexp.dump_dir=dumps")
    output, server = run(HiExpAgentLoop, config, tiny_tokenizer(), [ANSWERED, "never asked"])
    assert len(server.prompts) == 1 and all(output.response_mask)
    record = output.extra_fields["hiexp"]
    assert record["domain"] == "sums" and record["searches"] == 0 and {row["place"] for row in record["shown"]} == {"prompt"}
    assert "document collection" not in tiny_tokenizer().decode(server.prompts[0]), "no tool is offered"
    result = compute_score("x", "", ["42"], {"hiexp": record}, domain=config.reward.custom_reward_function.reward_kwargs.domain)
    assert (result["score"], result["format"]) == (1.0, 1.0)
    trajectory = json.loads(str(result[TRAJECTORY_KEY]))
    assert trajectory["prediction"] == "42.0" and trajectory["correct"] and trajectory["extra"]["domain"] == "sums"


def test_a_hek_of_another_domain_does_not_start_a_run(paths):
    with pytest.raises(HiExpError, match="is of the domain sums, the questions are of search"):
        run(HiExpAgentLoop, config_of(paths, "hermes"), tiny_tokenizer(), [ANSWERED])


def test_a_row_has_the_prompt_of_its_domain():
    row = row_of(question("q1", "What is 17 + 25?", ("42",)), 0, "hermes", SUMS)
    assert row["prompt"][0]["content"] == "Add. Write the sum in \\boxed{}." and row["ability"] == "sums"


def test_rows_of_mathematics_are_read_and_scored_by_their_domain():
    asked = question("q1", "What is half of $x$?", (r"\frac{x}{2}",))
    row = row_of(asked, 0, "hermes", MATHS)
    assert r"\boxed{42}" in row["prompt"][0]["content"] and row["ability"] == "maths"
    scored = [compute_score("x", text, [r"\frac{x}{2}"], row["extra_info"], domain="maths") for text in (r"So \boxed{0.5x}.", "So 0.5x.")]
    assert [(each["score"], each["format"]) for each in scored] == [(1.0, 1.0), (0.0, 0.0)], "math-verify reads the first"


def test_a_run_without_math_verify_is_refused(monkeypatch):
    assert check_domain(HiExpConfig(domain="maths")) is MATHS
    monkeypatch.setattr("hiexp_verl.domains.maths.verifier.find_spec", lambda name: None)
    with pytest.raises(HiExpError, match=r"pip install hiexp_verl\[maths\]"):
        check_domain(HiExpConfig(domain="maths"))
    found = _safely("domain", lambda: _domain("maths"))
    assert not found.ok and "math-verify, which is not installed" in found.found


def test_the_recipe_of_mathematics_composes():
    with hydra.initialize_config_dir(str(RECIPES / "maths_7b"), version_base=None):
        config = hydra.compose("grpo", overrides=["hydra.searchpath=[pkg://verl.trainer.config]"])
    settings = settings_of(config)
    assert check_domain(settings) is MATHS and settings.prompt.top_k == 5
    assert config.reward.custom_reward_function.reward_kwargs.domain == config.data.hiexp_domain == "maths"
    assert (config.actor_rollout_ref.actor.optim.lr, config.data.train_batch_size, config.actor_rollout_ref.rollout.n) == (1e-6, 128, 8)


def test_a_tool_of_somebodys_own_is_not_trained_with():
    assert check_domain(HiExpConfig(domain=PLACE)) is SUMS and check_domain(HiExpConfig()) is SEARCH
    with pytest.raises(HiExpError, match="has a tool of its own, which training does not run"):
        check_domain(HiExpConfig(domain="tests.verl.test_domain:OWN"))


def test_a_checkpoint_names_a_domain_that_is_not_search(paths):
    config = config_of(paths, "hermes")
    assert "domain" not in identity_of(HiExpConfig(), None, config)
    assert identity_of(HiExpConfig(domain=PLACE), None, config)["domain"] == "sums"


def test_nobody_is_alarmed_by_a_policy_without_a_tool_that_does_not_search():
    hek = hek_of([entry("e1-a"), entry("e2-a", "e2", children=("e1-a",))], HashEncoder())
    assert Expectation(HiExpConfig(), hek, 2).state()["silent"] == ["prompt", "tool"]
    assert Expectation(HiExpConfig(domain=PLACE), hek, 2).state()["silent"] == ["prompt"]
    alarms = {name: Watch(HiExpConfig(domain=name), None, 2, 0)._alarms._settings.searches for name in ("search", PLACE)}
    assert alarms == {"search": HiExpConfig().alarms.searches, PLACE: "off"}
