"""What a build costs is told before and counted after."""

import json

import pytest

from hiexp_verl.cli import main
from hiexp_verl.distil.distillers import PromptedDistiller, concurrency_for
from hiexp_verl.distil.dry_run import dry_run
from hiexp_verl.distil.pipeline import distil
from hiexp_verl.distil.replies import ENTRY_SCHEMA, ModelReplies, Price, Usage
from hiexp_verl.distil.spec import BuildSpec
from hiexp_verl.errors import HiExpError
from hiexp_verl.io.files import write_jsonl
from hiexp_verl.io.manifest import read_manifest
from hiexp_verl.models.chat import Reply
from hiexp_verl.models.encoder import HashEncoder
from tests.support.episodes import trajectories
from tests.support.scripted_distiller import GOOD

ENCODER = HashEncoder(64)
SPEC = "openai:http://127.0.0.1:9/v1#m"  # where nobody listens


class Model:
    """Answers with one draft, or with prose where `refuses(prompt, seed)`; every prompt takes 10 tokens, every answer 4."""

    def __init__(self, refuses=lambda prompt, seed: False):
        self.refuses, self.calls = refuses, []

    def complete(self, conversations, *, max_tokens, temperature, seed, schema, progress, on_reply):
        assert schema == ENTRY_SCHEMA
        texts = []
        for i, ((message,),) in enumerate(zip(conversations, strict=True)):
            self.calls.append((message["content"], temperature))
            texts.append("no" if self.refuses(message["content"], seed) else json.dumps(GOOD))
            on_reply(i, Reply(texts[-1], "stop", completion_tokens=4, prompt_tokens=10))
        return texts


def test_calls_and_tokens_are_counted():
    model = Model(refuses=lambda prompt, seed: seed == 0 and "currency" in prompt)
    distiller = PromptedDistiller(ModelReplies(model, "m"))
    distil(trajectories(), distiller, ENCODER)
    usage = distiller.usage
    repeated = sum(temperature > 0 for _, temperature in model.calls)
    assert repeated > 0
    assert (usage.calls, usage.repeated, usage.uncounted) == (len(model.calls), repeated, 0)
    assert (usage.prompt_tokens, usage.completion_tokens) == (10 * usage.calls, 4 * usage.calls)


def test_the_summary_names_what_there_is():
    usage = Usage(calls=312, repeated=41, prompt_tokens=120_331, completion_tokens=31_002, seconds=58.0)
    assert usage.summary() == "312 calls, 41 of them repeated, 120,331 prompt + 31,002 completion tokens, 58 s, 535 tokens/s"
    # 0.120331 * 0.15 + 0.031002 * 0.6 = 0.01805 + 0.01860
    assert usage.summary(Price(0.15, 0.6)).endswith(", cost 0.0367")


def test_a_server_that_tells_no_tokens_is_named():
    usage = Usage()
    usage.add(0, 0, repeated=False)
    assert "without 1 calls whose tokens the server did not count" in usage.summary()


def test_a_dry_run_shows_the_very_prompts_and_their_number():
    model = Model()
    distil(trajectories(), PromptedDistiller(ModelReplies(model, "m")), ENCODER)
    e1 = [prompt for prompt, _ in model.calls if "It failed once" in prompt]
    shown = dry_run(BuildSpec(trajectories(), ENCODER, SPEC), show=len(e1))
    assert f"{len(set(e1)):8,} calls for E1 with {sum(len(p) // 4 for p in set(e1)):,} prompt tokens\n" in shown
    assert "calls for E2" in shown
    assert all(prompt in shown for prompt in e1)
    assert shown.count("--- prompt ") == len(e1)


def test_a_dry_run_asks_nobody_and_writes_nothing(tmp_path, capsys):
    write_jsonl(tmp_path / "t.jsonl", trajectories())
    common = ["build", "--trajectories", str(tmp_path / "t.jsonl"), "--encoder", "hash:64", "--out", str(tmp_path / "hek")]
    assert main([*common, "--distiller", SPEC, "--dry-run", "--show", "0", "--price", "1", "2"]) == 0
    printed = capsys.readouterr().out
    assert "no model was asked" in printed
    assert "cost at most" in printed
    assert "--- prompt" not in printed
    assert [path.name for path in tmp_path.iterdir()] == ["t.jsonl"]
    assert main([*common, "--distiller", "rules", "--dry-run"]) == 2
    assert main([*common, "--distiller", "vllm:/nowhere", "--dry-run"]) == 2
    assert main([*common, "--concurrency", "0"]) == 2


def test_a_build_leaves_a_report_beside_the_versions(tmp_path):
    write_jsonl(tmp_path / "t.jsonl", trajectories())
    options = ["--encoder", "hash:64", "--out", str(tmp_path / "hek"), "--distiller", "rules"]
    assert main(["build", "--trajectories", str(tmp_path / "t.jsonl"), *options]) == 0
    manifest = read_manifest(tmp_path / "hek")
    assert (manifest.kind, manifest.results, manifest.spec["distiller"]) == ("build", {"hek": ["0001"]}, "rules")
    assert manifest.outcome["levels"]["e1"] == manifest.outcome["counts"]["written.e1"]
    assert (manifest.outcome["usage"], manifest.outcome["cost"]) == (None, None)


def test_a_dry_run_of_nothing_is_a_one_line_error():
    with pytest.raises(HiExpError, match="no experience"):
        dry_run(BuildSpec([], ENCODER, SPEC))


def test_somebody_elses_server_gets_fewer_requests_at_a_time():
    assert concurrency_for("openai") == 16
    assert concurrency_for("vllm") > 16
