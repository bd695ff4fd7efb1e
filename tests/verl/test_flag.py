"""`+hiexp=grpo|gspo` as a user of verl gives it, and what a bad run is told before anything starts."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.verl
pytest.importorskip("verl")

import datasets
import huggingface_hub
import hydra
from hydra.core.utils import JobReturn, JobStatus
from verl.trainer.ppo.v1.trainer_base import TRAINER_REGISTRY

from hiexp_verl.config import HiExpConfig, RewardConfig
from hiexp_verl.guide.constitution import save
from hiexp_verl.hek.store import HEK
from hiexp_verl.io.manifest import read_manifest
from hiexp_verl.models.tokenizer import PolicyTokenizer
from hiexp_verl.plugin import presets as settings_module
from hiexp_verl.plugin.agent_loop import HiExpAgentLoop, settings_of
from hiexp_verl.plugin.launch import CPU_ENVIRONMENT
from hiexp_verl.plugin.preflight import Preflight, check_model, check_response_length, warn_of_reward
from hiexp_verl.plugin.record import Record
from hiexp_verl.plugin.trainer import HiExpTrainerSync
from hiexp_verl.protocol import SEARCH_TOOL_SCHEMA, first_messages
from tests.support.chat_families import tokenizer_of
from tests.support.paths import RECIPES
from tests.support.verl_fixtures import compose, tiny_tokenizer, write_corpus, write_hek

ENGINE = "actor_rollout_ref.rollout.name=vllm"
CPU_RUN = {
    "trainer.device": "cpu",
    "trainer.n_gpus_per_node": 1,
    "actor_rollout_ref.actor.strategy": "fsdp2",
    "actor_rollout_ref.rollout.name": "vllm_cpu",
    "actor_rollout_ref.rollout.tensor_model_parallel_size": 1,
}
EVEN = {
    **CPU_RUN,
    "data.train_batch_size": 4,
    "actor_rollout_ref.rollout.n": 3,
    "actor_rollout_ref.rollout.log_prob_micro_batch_size_per_gpu": 4,
}


@pytest.mark.compat
def test_grpo_sets_everything_hiexp_needs():
    config = compose("+hiexp=grpo", ENGINE)
    rollout, actor = config.actor_rollout_ref.rollout, config.actor_rollout_ref.actor
    assert rollout.agent.default_agent_loop == "hiexp_agent"
    assert rollout.multi_turn.max_tool_response_length == 4000
    assert rollout.multi_turn.max_assistant_turns == 8
    assert config.reward.custom_reward_function.path == "pkg://hiexp_verl.plugin.reward"
    assert config.algorithm.adv_estimator == "hiexp_grpo"
    assert (actor.policy_loss.loss_mode, actor.loss_agg_mode) == ("vanilla", "token-mean")
    assert (actor.clip_ratio_low, actor.clip_ratio_high, actor.use_kl_loss) == (0.2, 0.2, True)
    assert config.hiexp.prompt.top_k == 1
    assert (config.data.max_prompt_length, config.data.max_response_length) == (2048, 4096)


def test_gspo_sets_its_loss_aggregation_and_clips_explicitly():
    actor = compose("+hiexp=gspo", ENGINE).actor_rollout_ref.actor
    assert (actor.policy_loss.loss_mode, actor.loss_agg_mode) == ("gspo", "seq-mean-token-mean")
    assert (actor.clip_ratio_low, actor.clip_ratio_high) == (3e-4, 4e-4)


def test_every_value_can_be_overridden():
    config = compose(
        *("+hiexp=grpo", ENGINE, "hiexp.tool.min_score=0.5", "actor_rollout_ref.actor.clip_ratio_high=0.28"),
        *("algorithm.adv_estimator=grpo", "data.max_response_length=3000"),
    )
    assert config.data.max_response_length == 3000
    assert config.hiexp.tool.min_score == 0.5
    assert config.actor_rollout_ref.actor.clip_ratio_high == 0.28
    assert config.algorithm.adv_estimator == "grpo"


@pytest.mark.compat
def test_main_ppo_knows_the_flag_after_pip_install_alone():
    command = [sys.executable, "-m", "verl.trainer.main_ppo", "+hiexp=gspo", ENGINE, "--cfg", "job"]
    result = subprocess.run(command, capture_output=True, text=True, env={**os.environ, "VERL_PLATFORM": "cpu"})
    assert result.returncode == 0, result.stderr[-2000:]
    assert "default_agent_loop: hiexp_agent" in result.stdout and "loss_mode: gspo" in result.stdout
    assert "could not register" not in result.stderr


WORKER = """
import json, os
import verl, ray
ray.init(num_cpus=1, include_dashboard=False, log_to_driver=False)
names = ray.remote(lambda: {k: os.environ.get(k) for k in json.loads(os.environ["WANTED"])})
print(json.dumps(ray.get(names.remote())))
"""


def test_verl_platform_alone_gives_the_workers_the_environment_of_a_cpu_run():
    """Not only `hiexp train --cpu`: Ray gives a worker without OMP_NUM_THREADS one thread."""
    theirs = {k: v for k, v in os.environ.items() if k not in CPU_ENVIRONMENT}
    given = {"VERL_PLATFORM": "cpu", "VLLM_CPU_KVCACHE_SPACE": "3", "WANTED": json.dumps(list(CPU_ENVIRONMENT))}
    result = subprocess.run([sys.executable, "-c", WORKER], capture_output=True, text=True, env={**theirs, **given})
    assert result.returncode == 0, result.stderr[-2000:]
    assert json.loads(result.stdout.splitlines()[-1]) == {**CPU_ENVIRONMENT, "VLLM_CPU_KVCACHE_SPACE": "3"}  # what is set stays


@pytest.fixture
def good(tmp_path, monkeypatch):
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", False)  # the model is a hub name, which nobody asks for
    train, val = tmp_path / "train.jsonl", tmp_path / "val.jsonl"
    train.write_text(json.dumps({"id": "1", "question": "Who?", "answer": "me"}) + "\n")
    val.write_text(json.dumps({"id": "2", "question": "How?", "answer": "so"}) + "\n")
    return {
        "hiexp.hek": write_hek(tmp_path / "hek"),
        "hiexp.search.corpus": write_corpus(tmp_path / "corpus.jsonl"),
        "data.train_files": train,
        "data.val_files": val,
        "actor_rollout_ref.model.path": "hub/name",
    }


def refusal(settings):
    config = compose("+hiexp=grpo", ENGINE, *(f"{key}={value}" for key, value in settings.items()))
    with pytest.raises(SystemExit) as stop:
        Preflight().on_run_start(config)
    text = str(stop.value)
    assert text.startswith("hiexp: ") and "\n" not in text
    return text


def test_a_second_training_in_a_folder_is_refused_in_one_line(good, tmp_path):
    good |= {"trainer.default_local_dir": tmp_path / "run"}
    config = compose("+hiexp=grpo", ENGINE, *(f"{key}={value}" for key, value in good.items()))
    first, second, result = Record(), Record(), JobReturn(status=JobStatus.COMPLETED)
    first.on_run_start(config)
    with pytest.raises(SystemExit, match=r"hiexp: another run .* is writing to"):
        second.on_run_start(config)
    first.on_run_end(config, job_return=result)
    second.on_run_start(config)
    second.on_run_end(config, job_return=result)


def test_a_run_records_its_configuration_and_its_files(good, tmp_path, monkeypatch):
    good |= {"trainer.default_local_dir": tmp_path / "run", "hiexp.dump_dir": tmp_path / "episodes", "trainer.logger": "[file]"}
    config = compose("+hiexp=grpo", ENGINE, *(f"{key}={value}" for key, value in good.items()))
    monkeypatch.setenv("VERL_FILE_LOGGER_PATH", str(tmp_path / "run" / "metrics.jsonl"))
    for outcome, error in ((None, ""), (RuntimeError("actor died\nHiExpError: nothing was shown"), "HiExpError: nothing was shown")):
        record, result = Record(), JobReturn(status=JobStatus.FAILED if outcome else JobStatus.COMPLETED)
        result.return_value = outcome
        record.on_run_start(config)
        manifest = read_manifest(tmp_path / "run")
        assert (manifest.kind, manifest.finished, manifest.spec["data"]["max_prompt_length"]) == ("training", None, 2048)
        record.on_run_end(config, job_return=result)
        manifest = read_manifest(tmp_path / "run")
        assert (manifest.finished is None, manifest.error) == (bool(error), error)
    assert manifest.results == {"checkpoints": ["."], "metrics": ["metrics.jsonl"], "episodes": ["../episodes"]}
    assert Path(manifest.outcome["hek_path"]).parent == tmp_path / "hek" and len(manifest.outcome["hek"]) == 64


def test_a_constitution_must_be_there_before_a_run_shows_it(good):
    good["hiexp.val_arm"] = "constitution"
    assert "nothing is; run `hiexp constitution" in refusal(good)
    hek = HEK.load(good["hiexp.hek"])
    save(good["hiexp.hek"], hek.header.content_hash, hek.entries[1:])
    Preflight().on_run_start(compose("+hiexp=grpo", ENGINE, *(f"{key}={value}" for key, value in good.items())))
    loop = {"hiexp.ledger.enabled": True, "hiexp.loop.enabled": True, "hiexp.dump_dir": "dumps"}
    assert "makes versions that have no constitution" in refusal(good | loop)


@pytest.mark.compat
def test_a_good_run_passes(good):
    Preflight().on_run_start(compose("+hiexp=grpo", ENGINE, *(f"{key}={value}" for key, value in good.items())))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"hiexp.hek": "null"}, "hiexp.hek is not set"),
        ({"hiexp.hek": "/nowhere"}, "/nowhere"),
        ({"hiexp.search.corpus": "null"}, "needs hiexp.search.corpus"),
        ({"hiexp.search.corpus": "/nowhere.jsonl"}, "corpus /nowhere.jsonl does not exist"),
        ({"actor_rollout_ref.model.path": "/nowhere/model"}, "/nowhere/model does not exist; give"),
        ({"actor_rollout_ref.model.path": "outputs/demo/model"}, "outputs/demo/model does not exist in /"),
        ({"actor_rollout_ref.model.path": "../model"}, "../model does not exist in /"),
        ({"hiexp.search.engine": "http", "hiexp.search.url": "http://127.0.0.1:9/retrieve"}, "does not answer"),
        ({"hiexp.search.engine": "http"}, "needs hiexp.search.url"),
        ({"hiexp.search.engine": "dense", "hiexp.search.encoder": "/nowhere/encoder"}, "/nowhere/encoder"),
        ({"hiexp.search.max_chars": 9000}, "raise actor_rollout_ref.rollout.multi_turn.max_tool_response_length above it"),
        ({"hiexp.encoder": "hash:64"}, "the HEK was made with the encoder"),
        ({"+hiexp.enabld": "false"}, "did you mean 'enabled'?"),
        ({"hiexp.enabld": "false"}, "did you mean 'enabled'?"),
        ({"actor_rollout_ref.rollout.agent.default_agent_loop": "tool_agent"}, "default_agent_loop=tool_agent shows no experience"),
        ({"data.train_files": "/nowhere.jsonl"}, "/nowhere.jsonl does not exist"),
    ],
)
def test_a_bad_run_is_refused_in_one_line(good, change, message):
    assert message in refusal({**good, **change})


def test_malformed_questions_are_named_by_line(good, tmp_path):
    bad = tmp_path / "bad.jsonl"
    bad.write_text('{"id": "1", "question": "Who?", "answer": "me"}\n{"id": "2"\n')
    assert "bad.jsonl:2: not JSON" in refusal({**good, "data.val_files": bad})


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"trainer.v1.trainer_mode": "colocate_async"},
            "trainer_mode=colocate_async does not log experience; set one of hiexp_sync, hiexp_colocate_async, hiexp_separate_async",
        ),
        ({"trainer.v1.trainer_mode": "separate_async"}, "trainer_mode=separate_async does not log experience"),
        ({"+async_training.staleness_threshold": 1}, "verl.experimental.fully_async_policy runs without our trainer"),
        ({"+rollout.nnodes": 1}, "verl.experimental.one_step_off_policy runs without our trainer"),
        (
            {"trainer.nnodes": 2, "hiexp.search.engine": "http", "hiexp.search.url": "http://127.0.0.1:9/retrieve"},
            "http://127.0.0.1:9/retrieve is each node's own machine, and trainer.nnodes=2",
        ),
        (
            {"trainer.nnodes": 2, "hiexp.encoder": "http://localhost.:9/v1#m"},
            "hiexp.encoder=http://localhost.:9/v1#m is each node's own machine, and trainer.nnodes=2",
        ),
        ({"trainer.v1.trainer_mode": "hiexp_asink"}, "trainer_mode=hiexp_asink does not log experience"),
        ({"trainer.use_v1": "false"}, "trainer.use_v1=false selects verl's earlier trainer"),
        ({**CPU_RUN, "actor_rollout_ref.actor.strategy": "fsdp"}, "strategy=fsdp does not run on a CPU; set it to fsdp2"),
        ({**CPU_RUN, "actor_rollout_ref.model.lora_rank": 8}, "set actor_rollout_ref.model.lora.merge=true"),
        ({**CPU_RUN, "actor_rollout_ref.model.lora.rank": 8}, "set actor_rollout_ref.model.lora.merge=true"),
        ({**CPU_RUN, "actor_rollout_ref.rollout.tensor_model_parallel_size": 2}, "tensor_model_parallel_size=2 does not run on a CPU"),
        ({**CPU_RUN, "actor_rollout_ref.rollout.data_parallel_size": 2}, "data_parallel_size=2 does not run on a CPU"),
        ({**CPU_RUN, "actor_rollout_ref.rollout.quantization": "fp8"}, "quantization=fp8 does not run on a CPU; set it to None"),
        ({**CPU_RUN, "actor_rollout_ref.rollout.name": "vllm"}, "rollout.name=vllm does not run on a CPU"),
        ({**CPU_RUN, "actor_rollout_ref.rollout.name": "sglang"}, "sglang does not run on a CPU; set it to vllm_cpu"),
        ({**CPU_RUN, "trainer.n_gpus_per_node": 2}, "trainer.n_gpus_per_node=2 does not run on a CPU"),
        ({**CPU_RUN, "trainer.nnodes": 2}, "trainer.nnodes=2 does not run on a CPU; set it to 1"),
        ({**CPU_RUN, "hiexp.enabled": "false", "trainer.v1.trainer_mode": "separate_async"}, "separate_async needs separate devices"),
        ({**CPU_RUN, "trainer.v1.trainer_mode": "hiexp_separate_async"}, "separate devices for rollouts; on a CPU set it to hiexp_sync"),
        (
            {**EVEN, "data.train_batch_size": 2},
            "= 6 is not divisible by actor_rollout_ref.rollout.log_prob_micro_batch_size_per_gpu=4",
        ),
        (
            {**EVEN, "actor_rollout_ref.ref.log_prob_micro_batch_size_per_gpu": 5},
            "= 12 is not divisible by actor_rollout_ref.ref.",
        ),
    ],
)
def test_what_verl_or_a_cpu_cannot_do_is_refused(good, change, message):
    assert message in refusal({**good, **change})


def test_what_they_can_do_passes(good):
    lora = {"actor_rollout_ref.model.lora_rank": 8}
    passes({**good, **lora, "trainer.v1.trainer_mode": "hiexp_colocate_async"})
    passes({**good, **lora, **CPU_RUN, "actor_rollout_ref.model.lora.merge": "true"})
    passes({**good, **CPU_RUN, "actor_rollout_ref.model.lora.rank": 8, "actor_rollout_ref.model.lora.merge": "true"})
    passes({**good, "hiexp.enabled": "false", "trainer.v1.trainer_mode": "separate_async"})
    passes({**good, "trainer.v1.trainer_mode": "hiexp_separate_async"})


def test_a_trainer_of_the_user_that_extends_ours_passes(good, monkeypatch):
    monkeypatch.setitem(TRAINER_REGISTRY, "mine", type("Mine", (HiExpTrainerSync,), {}))
    passes({**good, "trainer.v1.trainer_mode": "mine"})


def test_the_workers_get_absolute_paths_and_the_place_of_the_encoder(good, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    relative = {name: os.path.relpath(good[name], tmp_path) for name in ("hiexp.hek", "hiexp.search.corpus")}
    config = compose(
        "+hiexp=grpo",
        ENGINE,
        *(
            f"{key}={value}"
            for key, value in {**good, **relative, "hiexp.dump_dir": "dumps", "hiexp.loop.distiller": "files:answers"}.items()
        ),
    )
    Preflight().on_run_start(config)
    assert config.hiexp.hek == str(tmp_path / "hek") and config.hiexp.dump_dir == str(tmp_path / "dumps")
    assert config.hiexp.search.corpus == str(Path(good["hiexp.search.corpus"]).resolve())
    assert config.hiexp.loop.distiller == f"files:{tmp_path / 'answers'}"
    assert config.hiexp.encoder.path == "hash:256" and config.hiexp.encoder.device == "cpu"


def test_a_large_corpus_is_checked_by_its_first_passages(good, tmp_path):
    corpus = tmp_path / "large.jsonl"
    corpus.write_text('{"id": "1", "title": "T", "text": "t"}\n' * 1000 + "broken\n")
    passes({**good, "hiexp.search.corpus": corpus})
    corpus.write_text('{"id": "1", "title": "T", "text": "t"}\n' * 999 + "broken\n")
    assert "large.jsonl:1000: not JSON" in refusal({**good, "hiexp.search.corpus": corpus})


def test_on_a_cpu_lora_is_merged_unless_told_otherwise():
    assert settings_module.compose("gspo", cpu=True)["actor_rollout_ref"]["model"]["lora"] == {"merge": True}


def test_only_micro_batches_that_are_used_must_come_out_even(good):
    passes({**good, **EVEN})
    passes({**good, **EVEN, "actor_rollout_ref.ref.log_prob_micro_batch_size_per_gpu": 5, "actor_rollout_ref.actor.use_kl_loss": "false"})
    passes({**good, **EVEN, "data.train_batch_size": 2, "actor_rollout_ref.rollout.log_prob_use_dynamic_bsz": "true"})


def passes(settings):
    Preflight().on_run_start(compose("+hiexp=grpo", ENGINE, *(f"{key}={value}" for key, value in settings.items())))


def test_a_file_for_training_and_validation_is_refused_unless_nothing_is_trained(good, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    for twice in (good["data.train_files"], "train.jsonl", f"[{good['data.val_files']},../{tmp_path.name}/train.jsonl]"):
        both = {**good, "data.val_files": twice}
        assert "is in data.train_files and data.val_files; validate on other questions" in refusal(both)
        passes({**both, "trainer.val_only": "true"})


@pytest.mark.parametrize("text", ["Which country has Noshak as its highest point?", "as its highest point, which country has noshak"])
def test_a_hek_that_knows_a_validation_question_is_refused(good, tmp_path, text):
    rows = [{"id": "2", "question": "How?", "answer": "so"}, {"id": "dev-7", "question": text, "answer": "Afghanistan"}]
    (tmp_path / "val.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert "the HEK was distilled from 1 of the 2 validation questions" in refusal(good)
    assert "(the first: dev-7); remove them from data.val_files" in refusal(good)
    prompts = [[{"role": "user", "content": f"Answer the given question. Question: {asked}\n"}] for asked in ("Whose?", text)]
    write_prompts(tmp_path / "val.parquet", prompts)
    assert "1 of the 2 validation questions" in (told := refusal({**good, "data.val_files": tmp_path / "val.parquet"}))
    assert "(the first: row 1)" in told
    passes({**good, "hiexp.enabled": "false"})
    passes({**good, "trainer.val_only": "true"})


def test_an_empty_corpus_is_refused(good, tmp_path):
    (tmp_path / "empty.jsonl").write_text("")
    assert "is empty" in refusal({**good, "hiexp.search.corpus": tmp_path / "empty.jsonl"})


def test_a_prompt_that_verl_would_cut_is_refused(good, tmp_path):
    model = tmp_path / "model"
    tiny_tokenizer().save_pretrained(model)
    (model / "config.json").write_text('{"model_type": "llama"}')
    text = refusal({**good, "actor_rollout_ref.model.path": model, "data.max_prompt_length": 50})
    assert "over data.max_prompt_length=50" in text and "raise data.max_prompt_length" in text


def test_a_prompt_is_as_long_as_the_arguments_of_its_template_make_it(good, tmp_path):
    model = tmp_path / "model"
    tokenizer_of("qwen3").save_pretrained(model)
    (model / "config.json").write_text('{"model_type": "qwen3"}')
    prompt = PolicyTokenizer(model).count_prompt(first_messages("Who?", "hermes"), [SEARCH_TOOL_SCHEMA])
    fits = {**good, "actor_rollout_ref.model.path": model, "data.max_prompt_length": prompt, "hiexp.enabled": "false"}
    text = refusal({**fits, "+data.apply_chat_template_kwargs.enable_thinking": "false"})
    assert f"has {prompt + 4} tokens, over data.max_prompt_length={prompt}" in text  # an empty thought: two tags, two breaks


@pytest.mark.parametrize(("family", "type", "refused"), [("llama3", "llama", True), ("qwen3", "qwen3", False), ("smollm2", "llama", False)])
def test_a_template_that_knows_one_call_per_turn_is_refused_where_verl_renders_several(good, tmp_path, family, type, refused):
    model = tmp_path / "model"
    tokenizer_of(family).save_pretrained(model)
    (model / "config.json").write_text(json.dumps({"model_type": type}))
    settings = {**good, "actor_rollout_ref.model.path": model, "data.max_prompt_length": 8000}
    passes(settings)
    several = {**settings, "actor_rollout_ref.rollout.multi_turn.max_parallel_calls": 2}
    if refused and not hasattr(HiExpAgentLoop, "apply_chat_template"):  # verl 0.9.1
        assert "does not take 2 calls of one turn (This template knows one call per turn.)" in refusal(several)
    else:
        passes(several)


def write_questions(path, texts):
    """Write questions as JSONL, or as the prompts of a parquet file."""
    if path.suffix == ".parquet":
        write_prompts(path, [first_messages(text, "hermes") for text in texts])
    else:
        path.write_text("".join(json.dumps({"id": f"q{i}", "question": text, "answer": "me"}) + "\n" for i, text in enumerate(texts)))
    return path


def write_prompts(path, prompts, answer="me"):
    """Write a parquet file as verl trains on it."""
    truths = [{"style": "rule", "ground_truth": {"target": [answer]}}] * len(prompts)
    datasets.Dataset.from_dict({"prompt": prompts, "reward_model": truths}).to_parquet(path)


def test_rows_without_an_answer_are_refused_where_our_reward_needs_one(good, tmp_path):
    file = tmp_path / "train.parquet"
    write_prompts(file, [first_messages("Who?", "hermes")])
    passes({**good, "data.train_files": file})
    write_prompts(file, [first_messages("Who?", "hermes")], answer=" ")
    assert f"{file}, row 0: no answer" in refusal({**good, "data.train_files": file})
    datasets.Dataset.from_dict({"prompt": [first_messages("Who?", "hermes")]}).to_parquet(file)
    assert f"{file}, row 0: no answer" in refusal({**good, "data.train_files": file})
    passes({**good, "data.train_files": file, "reward.custom_reward_function.path": "mine.py"})


def test_a_validation_question_that_is_trained_on_is_refused(good, tmp_path):
    train = write_questions(tmp_path / "train.jsonl", ["Who wrote it?", "When was it?"])
    val = write_questions(tmp_path / "held_out.parquet", ["Where was it?", "WHO  wrote it"])
    text = refusal({**good, "data.train_files": train, "data.val_files": val})
    assert f"1 of the 2 validation questions of {val} (the first: row 1) are also in data.train_files" in text
    write_questions(val, ["Where was it?"])
    passes({**good, "data.train_files": train, "data.val_files": val})


@pytest.mark.parametrize(("suffix", "name"), [("jsonl", "q100"), ("parquet", "row 100")])
def test_the_prompt_of_most_tokens_is_measured_not_that_of_most_characters(good, tmp_path, suffix, name):
    model = tmp_path / "model"
    tiny_tokenizer().save_pretrained(model)  # a token per byte: 240 for the short, 660 for the long
    (model / "config.json").write_text('{"model_type": "llama"}')
    short, long = "a" * 240, "\u9f98" * 220
    prompt = PolicyTokenizer(model).count_prompt(first_messages(long, "hermes"))
    file = write_questions(tmp_path / f"train.{suffix}", [short] * 100)
    fits = {**good, "actor_rollout_ref.model.path": model, "data.train_files": file, "hiexp.enabled": "false"}
    passes({**fits, "data.max_prompt_length": prompt - 1})
    write_questions(file, [*[short] * 100, long, *["Who?"] * 100])
    text = refusal({**fits, "data.max_prompt_length": prompt - 1})
    assert f"question {name} in {file} has {prompt} tokens, over data.max_prompt_length={prompt - 1}" in text
    passes({**fits, "data.max_prompt_length": prompt})
    passes({**fits, "data.max_prompt_length": prompt - 1, "data.filter_overlong_prompts": "true"})


@pytest.mark.parametrize(
    ("column", "message"),
    [
        ({"question": ["Who?"]}, "row 0: the column 'prompt' must be a list of messages"),
        ({"prompt": ["Who?"]}, "row 0: the column"),
        ({"prompt": [[{"role": "user"}]]}, "must be a list of messages with role and content, found"),
        (None, "is not a parquet file"),
    ],
)
def test_a_parquet_file_without_prompts_is_refused(good, tmp_path, column, message):
    file = tmp_path / "train.parquet"
    datasets.Dataset.from_dict(column).to_parquet(file) if column else file.write_text("no parquet")
    assert message in refusal({**good, "data.train_files": file})


def room_for_experience(good, tmp_path, **change):
    """Return the settings of a run whose prompt leaves 99 tokens for experience, and the prompt's length."""
    model = tmp_path / "model"
    tiny_tokenizer().save_pretrained(model)
    (model / "config.json").write_text('{"model_type": "llama"}')
    prompt = PolicyTokenizer(model).count_prompt(first_messages("Who?", "hermes"))
    return {**good, "actor_rollout_ref.model.path": model, "data.max_prompt_length": prompt + 99, **change}, prompt


def test_a_prompt_that_leaves_no_room_for_experience_is_refused(good, tmp_path):
    settings, prompt = room_for_experience(good, tmp_path)
    text = refusal({**settings, "hiexp.prompt.max_tokens": 100})
    assert (
        f"question 1 in {good['data.train_files']} has {prompt} tokens" in text
        and f"set max_prompt_length to {prompt + 100} or more, or max_tokens to 99" in text
    )


@pytest.mark.parametrize(
    "change",
    [{"hiexp.prompt.max_tokens": 99}, {"hiexp.prompt.max_tokens": 0}, {"hiexp.enabled": "false"}, {"hiexp.arm": "tool"}],
)
def test_a_prompt_with_just_enough_room_passes(good, tmp_path, change):
    settings, _ = room_for_experience(good, tmp_path, **change)
    Preflight().on_run_start(compose("+hiexp=grpo", ENGINE, *(f"{key}={value}" for key, value in settings.items())))


# Two searches of 2 x 32 words at 1.35 tokens with 96 tokens of experience, and three turns of 64.
FEW_WORDS = {"hiexp.search.top_k": 2, "hiexp.search.max_words_per_passage": 32}


@pytest.mark.parametrize(
    ("change", "tokens"),
    [
        ({}, 1734),  # 2 x (5 x 100 x 1.35 + 96) + 3 x 64
        (FEW_WORDS, 557),  # 2 x (86.4 + 96) + 192 = 556.8
        ({**FEW_WORDS, "hiexp.max_tokens_per_turn": 10}, 395),  # 364.8 + 30
        ({**FEW_WORDS, "hiexp.search.max_chars": 200}, 484),  # 2 x (50 + 96) + 192
        ({**FEW_WORDS, "hiexp.arm": "prompt"}, 365),  # 172.8 + 192
        ({**FEW_WORDS, "hiexp.enabled": "false"}, 365),
    ],
)
def test_a_response_too_short_for_two_searches_is_refused(good, change, tokens):
    text = refusal({**good, **change, "data.max_response_length": tokens - 1})
    assert f"data.max_response_length={tokens - 1} has no room" in text and f"set it to {tokens} or more" in text
    just = {**good, **change, "data.max_response_length": tokens}
    Preflight().on_run_start(compose("+hiexp=grpo", ENGINE, *(f"{key}={value}" for key, value in just.items())))


@pytest.mark.parametrize("name", ["cpu_demo/grpo", "cpu_demo/gspo", "multihop_7b/grpo", "multihop_7b/gspo"])
def test_the_recipes_have_room_for_what_they_show(name):
    folder, _, file = name.partition("/")
    with hydra.initialize_config_dir(str(RECIPES / folder), version_base=None):
        config = hydra.compose(file, overrides=[ENGINE, "hydra.searchpath=[pkg://verl.trainer.config]"])
    lengths = (config.data.max_prompt_length, config.data.max_response_length)
    assert lengths == ((384, 672) if folder == "cpu_demo" else (2048, 8192)), "a recipe's own lengths win"
    assert config.actor_rollout_ref.actor.policy_loss.loss_mode == {"grpo": "vanilla", "gspo": "gspo"}[file]
    check_response_length(settings_of(config), config.data.max_response_length)


def test_a_damaged_tokenizer_is_refused(good, tmp_path):
    model = tmp_path / "model"
    tiny_tokenizer().save_pretrained(model)
    (model / "config.json").write_text('{"model_type": "llama"}')
    (model / "tokenizer.json").write_text("{")
    assert "the tokenizer in" in refusal({**good, "actor_rollout_ref.model.path": model})


def test_a_broken_hek_is_refused(good):
    entries = next(good["hiexp.hek"].glob("0*/entries.jsonl"))
    entries.write_text(entries.read_text().replace("mountain", "hill"))
    assert "content hash" in refusal(good)


def test_a_model_directory_that_is_none_is_refused(good, tmp_path):
    (tmp_path / "empty").mkdir()
    assert "found no config.json" in refusal({**good, "actor_rollout_ref.model.path": tmp_path / "empty"})


def test_a_hub_name_that_cannot_be_fetched_is_refused(good, tmp_path, monkeypatch):
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path))
    text = refusal(good)
    assert f"hub/name is neither a directory in {Path.cwd()} nor in the hub cache {tmp_path}" in text
    assert "unset HF_HUB_OFFLINE" in text
    cached = tmp_path / "models--hub--name"
    for folder in ("refs", "snapshots/0123"):
        (cached / folder).mkdir(parents=True)
    (cached / "refs" / "main").write_text("0123")
    (cached / "snapshots" / "0123" / "config.json").write_text("{}")
    check_model("hub/name")


def test_main_ppo_stops_with_one_line_before_ray_starts(good):
    overrides = [f"{key}={value}" for key, value in {**good, "hiexp.hek": "/nowhere"}.items()]
    command = [sys.executable, "-m", "verl.trainer.main_ppo", "+hiexp=grpo", ENGINE, *overrides]
    result = subprocess.run(command, capture_output=True, text=True, env={**os.environ, "VERL_PLATFORM": "cpu"})
    assert result.returncode == 1
    assert result.stderr.strip().splitlines()[-1].startswith("hiexp: ")
    assert "Warning" not in result.stderr, "what is not about this run stands before the refusal"
    assert "ray init" not in result.stdout


@pytest.mark.parametrize(("kind", "warned"), [("pvpo", True), ("cem", True), ("concise", False), ("em", False)])
def test_a_reward_that_pays_for_several_answers_at_once_is_warned_of(caplog, kind, warned):
    warn_of_reward(HiExpConfig(reward=RewardConfig(kind)))
    assert (f"hiexp.reward.kind={kind} also pays for 'A or B'" in caplog.text) is warned
