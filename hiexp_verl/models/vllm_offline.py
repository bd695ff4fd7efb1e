"""Offline generation with vLLM on a model directory, without a server.

The engine runs in a child process (`vllm_worker`): its memory is freed at the end, and a crash is an error of this process.
"""

import json
import logging
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

from tqdm import tqdm
from typing_extensions import Unpack

from hiexp_verl.errors import HiExpError
from hiexp_verl.models.chat import MAX_MODEL_LEN, ChatOptions, Reply
from hiexp_verl.models.vllm_process import engine_arguments, engine_process, log_tail
from hiexp_verl.types import Message

logger = logging.getLogger(__name__)


class OfflineModel:
    """A model in a worker process; has the `complete` of `ChatClient`."""

    def __init__(self, worker: "subprocess.Popen[str]", log: IO[bytes], model_dir: Path) -> None:
        self.model = model_dir.resolve().name
        self._worker = worker
        self._log = log
        self._asked = 0  # requests so far: the worker numbers replies over all jobs

    def complete(
        self,
        conversations: Sequence[Sequence[Message]],
        *,
        max_tokens: int,
        progress: str = "",
        on_reply: Callable[[int, Reply], None] | None = None,
        **options: Unpack[ChatOptions],
    ) -> list[str]:
        """Answer all conversations, in their order; `on_reply(index, reply)` is called as each answer arrives, in any order.

        Raises:
            HiExpError: the engine stops, for example at a prompt that is too long; the message quotes its log.
        """
        sampling: dict[str, Any] = {"temperature": 0.0, **options, "max_tokens": max_tokens}
        schema = sampling.pop("schema", None)
        self._send({"conversations": [list(messages) for messages in conversations], "sampling": sampling, "schema": schema})
        texts = [""] * len(conversations)
        with tqdm(total=len(conversations), desc=progress, disable=not progress) as bar:
            while "done" not in (row := self.receive()):
                index = row.pop("number") - self._asked
                reply = Reply(**row)
                texts[index] = reply.text
                bar.update()
                if on_reply is not None:
                    on_reply(index, reply)
        self._asked += len(conversations)
        return texts

    def receive(self) -> dict[str, Any]:
        """Return the next message of the worker.

        Raises:
            HiExpError: it has stopped; the message quotes its log.
        """
        assert self._worker.stdout is not None
        line = self._worker.stdout.readline()
        if not line.endswith("\n"):
            raise self._stopped()
        return json.loads(line)

    def _send(self, row: dict[str, Any]) -> None:
        assert self._worker.stdin is not None
        try:
            self._worker.stdin.write(json.dumps(row) + "\n")
            self._worker.stdin.flush()
        except BrokenPipeError as error:
            raise self._stopped() from error

    def _stopped(self) -> HiExpError:
        return HiExpError(f"vLLM stopped while it ran {self.model}; its log ends: {log_tail(self._log)}")


@contextmanager
def offline_vllm(model_dir: Path, max_model_len: int = MAX_MODEL_LEN) -> Iterator[OfflineModel]:
    """Yield a model directory loaded into vLLM; its memory is freed at the end.

    Raises:
        HiExpError: the directory holds no model, vLLM is not installed, or it cannot load the model.
    """
    arguments = {"model": str(model_dir), **engine_arguments(model_dir, max_model_len)}
    command = [sys.executable, "-m", "hiexp_verl.models.vllm_worker", json.dumps(arguments)]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "encoding": "utf-8"}
    with engine_process(command, **pipes) as (worker, log):
        model = OfflineModel(worker, log, model_dir)
        logger.info("waiting for vLLM to load %s", model_dir)
        model.receive()
        yield model
