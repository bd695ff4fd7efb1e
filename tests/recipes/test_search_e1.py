"""The recipes of Search-E1: their configurations compose, and pass the checks before a run."""

import json
import os
import subprocess
import sys

import pytest

pytestmark = pytest.mark.verl
pytest.importorskip("verl")

import hydra

from hiexp_verl.io.files import write_jsonl
from hiexp_verl.plugin.agent_loop import settings_of
from hiexp_verl.plugin.preflight import check_response_length
from hiexp_verl.plugin.preflight_arms import check_distil
from recipes.search_e1_cpu.run import print_rounds, rounds_in
from tests.support.paths import RECIPES, ROOT
from tests.support.verl_fixtures import tiny_tokenizer, write_corpus

# What `hiexp train --cpu` has the driver check, without the trainer after it.
CHECK = """
import sys, verl, hydra
from hiexp_verl.plugin.preflight import check_run
with hydra.initialize_config_dir(sys.argv[1], version_base=None):
    check_run(hydra.compose("grpo", overrides=["hydra.searchpath=[pkg://verl.trainer.config]", *sys.argv[2:]]))
"""


def test_the_sizes_of_the_paper_pass_the_checks_of_their_rounds():
    with hydra.initialize_config_dir(str(RECIPES / "search_e1_3b"), version_base=None):
        config = hydra.compose("grpo", overrides=["hydra.searchpath=[pkg://verl.trainer.config]"])
    settings, rollout = settings_of(config), config.actor_rollout_ref.rollout
    check_distil(settings, config)
    check_response_length(settings, config.data.max_response_length)
    assert (rollout.n, rollout.multi_turn.max_assistant_turns - 1) == (5, 4), "the paper's rollouts and searches"
    assert config.trainer.total_training_steps // settings.distil.every == 2, "rounds"
    assert not settings.enabled and settings.distil.privilege == "sibling"


def test_the_small_one_passes_every_check_of_a_run_on_a_cpu(tmp_path):
    model = tmp_path / "model"
    tiny_tokenizer().save_pretrained(model)
    (model / "config.json").write_text('{"model_type": "llama", "vocab_size": 300}')
    for name in ("train", "val"):
        write_jsonl(
            tmp_path / f"{name}.jsonl", [{"id": f"{name}-{i}", "question": f"Which {name} is {i}?", "answer": "x"} for i in range(8)]
        )
    overrides = [
        f"hiexp.search.corpus={write_corpus(tmp_path / 'c.jsonl')}",
        f"hiexp.dump_dir={tmp_path / 'episodes'}",
        f"data.train_files={tmp_path / 'train.jsonl'}",
        f"data.val_files={tmp_path / 'val.jsonl'}",
        f"actor_rollout_ref.model.path={model}",
        f"trainer.default_local_dir={tmp_path / 'checkpoints'}",
    ]
    command = [sys.executable, "-c", CHECK, str(RECIPES / "search_e1_cpu"), *overrides]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, env={**os.environ, "VERL_PLATFORM": "cpu"})
    assert done.returncode == 0, done.stderr[-2000:]


def test_the_rounds_are_read_from_the_metrics(capsys, tmp_path):
    rows = [{"step": 1, "x": 1.0}, {"step": 2, "hiexp/distil/updates": 3.0, "hiexp/distil/held_out_kl": 0.25}]
    rounds = rounds_in(json.loads(json.dumps(rows)))
    assert rounds == [{"step": 2, "updates": 3.0, "held_out_kl": 0.25}]
    assert print_rounds(rounds, tmp_path / "report.html") == 0
    assert "step 2: updates 3, held_out_kl 0.25" in capsys.readouterr().out
    assert print_rounds([{"step": 2, "students": 0.0}], tmp_path / "report.html") == 1
