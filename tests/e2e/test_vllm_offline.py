"""vLLM's offline generation in a process of its own, which ends with us."""

import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from hiexp_verl.distil.replies import ENTRY_SCHEMA
from hiexp_verl.errors import HiExpError
from hiexp_verl.io.files import cache_dir
from hiexp_verl.models import vllm_offline
from hiexp_verl.models.chat import Reply
from hiexp_verl.models.vllm_offline import offline_vllm
from hiexp_verl.models.vllm_process import start_child, stop_child

SMALL = cache_dir() / "smollm2-135m"
# Speaks the worker's protocol: replies in the wrong order, numbered over all jobs; dies of a prompt "die".
FAKE = """
import json, sys
print(json.dumps({"ready": True}), flush=True)
number = 0
for line in sys.stdin:
    job = json.loads(line)
    texts = [c[0]["content"] for c in job["conversations"]]
    if "die" in texts:
        sys.exit("RuntimeError: out of memory")
    for i in reversed(range(len(texts))):
        row = {"number": number + i, "text": texts[i].upper(), "finish_reason": "stop", "prompt_tokens": 3, "completion_tokens": 1}
        print(json.dumps(row), flush=True)
    number += len(texts)
    print(json.dumps({"done": True}), flush=True)
"""


@pytest.fixture
def fake_worker(monkeypatch, tmp_path):
    real = vllm_offline.engine_process
    monkeypatch.setattr(vllm_offline, "engine_arguments", lambda folder, length: {})
    monkeypatch.setattr(vllm_offline, "engine_process", lambda command, **pipes: real([sys.executable, "-c", FAKE], **pipes))
    return tmp_path


def ask(model, *texts, **options):
    return model.complete([[{"role": "user", "content": text}] for text in texts], max_tokens=5, **options)


def test_replies_find_their_prompts(fake_worker):
    arrived = []
    with offline_vllm(fake_worker) as model:
        assert ask(model, "a", "b") == ["A", "B"]
        assert ask(model, "c", "d", "e", on_reply=lambda i, reply: arrived.append((i, reply))) == ["C", "D", "E"]
        assert ask(model) == []
    assert arrived == [(i, Reply(text, "stop", 1, 3)) for i, text in ((2, "E"), (1, "D"), (0, "C"))]


def test_a_worker_that_dies_is_one_line_with_the_cause(fake_worker):
    with offline_vllm(fake_worker) as model:
        for text in ("die", "after"):
            with pytest.raises(HiExpError, match="out of memory") as error:
                ask(model, text)
            assert "\n" not in str(error.value)


def is_running(process_id):
    try:
        return Path(f"/proc/{process_id}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except OSError:
        return False


def wait_until_gone(process_id, seconds=10.0):
    end = time.monotonic() + seconds
    while is_running(process_id) and time.monotonic() < end:
        time.sleep(0.02)
    return not is_running(process_id)


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells children of their parent's end")
def test_a_child_ends_with_a_parent_that_was_killed():
    code = "import sys, time; from hiexp_verl.models.vllm_process import start_child; print(start_child(['sleep', '60']).pid, flush=True); time.sleep(60)"
    parent = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    child = int(parent.stdout.readline())
    assert is_running(child)
    parent.kill()
    parent.wait()
    assert wait_until_gone(child)


def test_a_child_is_stopped_with_what_it_started():
    code = "import subprocess, sys; p = subprocess.Popen(['sleep', '60']); print(p.pid, flush=True); p.wait()"
    child = start_child([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    grandchild = int(child.stdout.readline())
    stop_child(child)
    assert child.poll() == -signal.SIGTERM
    assert wait_until_gone(grandchild)


@pytest.mark.e2e
@pytest.mark.skipif(not SMALL.is_dir(), reason="the small model is not in the cache")
def test_a_real_model_answers_within_the_schema():
    pytest.importorskip("vllm")
    with offline_vllm(SMALL, max_model_len=512) as model:
        process_id = model._worker.pid
        replies = {}
        texts = model.complete(
            [[{"role": "user", "content": "Give advice."}]] * 2, max_tokens=100, seed=0, schema=ENTRY_SCHEMA, on_reply=replies.__setitem__
        )
    assert texts[0].lstrip().startswith("{")
    assert all(replies[i].text == texts[i] and 0 < replies[i].completion_tokens <= 100 for i in (0, 1))
    assert not is_running(process_id)
