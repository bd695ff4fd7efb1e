"""A build that is killed at any point goes on, and gives the same bytes as one that was left alone."""

import hashlib
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import threading
import time

import pytest

from hiexp_verl.cli import main
from hiexp_verl.io.files import write_jsonl
from tests.support.chat_server import completion, server
from tests.support.episodes import trajectories
from tests.support.paths import ROOT
from tests.support.stored_hek import hek

pytest.importorskip("openai")
OF_THIS_RUN = {"answers.jsonl", "run.json"}  # what was paid when: not part of the HEK


def answer(request, number):
    """Answer by the prompt and the seed alone, slowly; one first answer in three is no entry."""
    threading.Event().wait(0.03)
    digest = hashlib.sha256(json.dumps([request["messages"], request["seed"]]).encode()).digest()
    if request["seed"] == 0 and digest[0] % 3 == 0:
        return 200, completion("I would rather not.")
    words = [["film", "river", "author", "bridge"][byte % 4] for byte in digest[:3]]
    draft = {"title": f"A question about {' and '.join(words)}", "description": f"Search for the {words[0]} first.", "kind": "guide"}
    return 200, completion(json.dumps(draft))


def arguments(out, url, *more):
    trajectories_file = out.parent / "trajectories.jsonl"
    if not trajectories_file.exists():
        write_jsonl(trajectories_file, trajectories())
    options = ["--distiller", f"openai:{url}#m", "--encoder", "hash:64", "--out", str(out), "--concurrency", "2"]
    return ["build", "--trajectories", str(trajectories_file), *options, *more]


def contents(root):
    files = [path for path in root.rglob("*") if path.is_file() and path.name not in OF_THIS_RUN]
    return {str(path.relative_to(root)): path.read_bytes() for path in files}


def test_a_killed_build_goes_on_and_ends_with_the_same_bytes(tmp_path):
    with server(answer) as (url, requests):
        assert main(arguments(tmp_path / "whole", url)) == 0
        calls = len(requests)
        assert calls > 20
        for kill_after in sorted(random.Random(0).sample(range(1, calls), 3)):
            before = len(requests)
            command = [sys.executable, "-m", "hiexp_verl.cli", *arguments(tmp_path / "killed", url, "--resume")]
            build = subprocess.Popen(command, cwd=ROOT, stderr=subprocess.DEVNULL, env={**os.environ, "PYTHONPATH": str(ROOT)})
            while len(requests) < before + kill_after // 4 and build.poll() is None:
                time.sleep(0.005)
            build.kill()
            assert build.wait() == -signal.SIGKILL
        before = len(requests)
        assert main(arguments(tmp_path / "killed", url, "--resume")) == 0
        assert len(requests) - before < calls  # some were kept
    assert contents(tmp_path / "killed") == contents(tmp_path / "whole")


def test_stored_answers_alone_give_the_same_bytes(tmp_path):
    with server(answer) as (url, requests):
        assert main(arguments(tmp_path / "asked", url)) == 0
        calls = len(requests)
        (tmp_path / "stored").mkdir()
        shutil.copy(tmp_path / "asked" / "answers.jsonl", tmp_path / "stored")
        assert main(arguments(tmp_path / "stored", url, "--resume")) == 0
        assert len(requests) == calls
    assert contents(tmp_path / "stored") == contents(tmp_path / "asked")
    usage = json.loads((tmp_path / "stored" / "run.json").read_text())["outcome"]["usage"]
    assert (usage["calls"], usage["stored"]) == (0, calls)


def test_answers_of_an_interrupted_build_are_not_thrown_away_unasked(tmp_path, capsys):
    out = tmp_path / "hek"
    with server(answer) as (url, requests):
        assert main(arguments(out, url)) == 0
        answers = (out / "answers.jsonl").read_bytes()
        (out / "answers.jsonl").write_bytes(b"".join(answers.splitlines(keepends=True)[:3]))  # a later build came so far
        calls = len(requests)
        capsys.readouterr()
        for _ in range(2):
            assert main(arguments(out, url)) == 2
            told = capsys.readouterr().err.splitlines()[-1]
            for part in ("answers.jsonl holds 3 answers of an interrupted build", "--resume", "delete that file to start over"):
                assert part in told
            # Builds that ask no model have nothing to do with it, and do not make it forgotten.
            assert main([*arguments(out, url), "--distiller", "rules"]) == 0
        assert len(requests) == calls
        assert main(arguments(out, url, "--resume")) == 0
        assert len(requests) == 2 * calls - 3
        assert main(arguments(out, url)) == 0  # it is finished now
        (out / "answers.jsonl").unlink()
        assert main(arguments(out, url)) == 0


def test_without_resume_the_answers_are_asked_for_again(tmp_path):
    with server(answer) as (url, requests):
        assert main(arguments(tmp_path / "hek", url)) == 0
        calls = len(requests)
        assert main(arguments(tmp_path / "hek", url)) == 0
    assert len(requests) == 2 * calls
    assert [path.name for path in (tmp_path / "hek").iterdir() if path.is_dir()] == ["0001"]


# What changes the disk in a save; a kill just before each call of each of them covers every state that can be seen.
STEPS = ("fsync", "replace", "rename", "mkdir", "open", "chmod")


def killed_at(step, call, root, made):
    """Save in a forked process that kills itself before the call-th call of os.`step`; say whether it came so far."""
    child = os.fork()
    if not child:
        real, seen = getattr(os, step), 0

        def deadly(*args, **options):
            nonlocal seen
            seen += 1
            if seen == call:
                os.kill(os.getpid(), signal.SIGKILL)
            return real(*args, **options)

        setattr(os, step, deadly)
        try:
            made.save(root)
        finally:
            os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGKILL


@pytest.mark.parametrize("step", STEPS)
def test_a_save_killed_at_any_step_is_finished_by_the_next(tmp_path, step):
    hek(models=("first",)).save(tmp_path / "whole")
    shutil.copytree(tmp_path / "whole", tmp_path / "before")
    second = hek(models=("second",))
    second.save(tmp_path / "whole")
    call = 1
    while killed_at(step, call, shutil.copytree(tmp_path / "before", tmp_path / f"killed-{call}"), second):
        assert second.save(tmp_path / f"killed-{call}").name == "0002"
        assert contents(tmp_path / f"killed-{call}") == contents(tmp_path / "whole")
        call += 1
    assert call > 1
