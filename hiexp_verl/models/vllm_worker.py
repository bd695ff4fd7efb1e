"""The worker process of `vllm_offline`: reads jobs as JSON lines and writes each reply as a JSON line once it is finished.

Usage: python -m hiexp_verl.models.vllm_worker '{"model": DIR, ...}' (arguments of vllm.LLM)
"""

import json
import os
import signal
import sys
from collections.abc import Callable
from typing import Any

Send = Callable[[dict[str, Any]], None]


def main() -> None:
    """Load the model, then answer jobs until the input ends; an error of vLLM ends the process and is in its log."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # lets vLLM stop its child processes
    replies = os.fdopen(os.dup(sys.stdout.fileno()), "w", encoding="utf-8")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())  # vLLM logs to standard output

    def send(row: dict[str, Any]) -> None:
        replies.write(json.dumps(row) + "\n")
        replies.flush()

    from vllm import LLM

    llm = LLM(**json.loads(sys.argv[1]))
    _send_when_finished(llm, send)
    send({"ready": True})
    for line in sys.stdin:
        _answer(llm, json.loads(line))
        send({"done": True})


def _send_when_finished(llm: Any, send: Send) -> None:
    """Send each reply in the step that finished it; `chat` returns all at the end, so an interruption would lose them."""
    step = llm.llm_engine.step

    def step_and_send() -> Any:
        outputs = step()
        for output in outputs:
            if output.finished:
                send(_reply(output))
        return outputs

    llm.llm_engine.step = step_and_send


def _answer(llm: Any, job: dict[str, Any]) -> None:
    from vllm import SamplingParams
    from vllm.sampling_params import StructuredOutputsParams

    # Defaults of the model's generation config first, as vLLM's server does.
    sampling = {**llm.model_config.get_diff_sampling_param(), **job["sampling"]}
    if job["schema"] is not None:
        sampling["structured_outputs"] = StructuredOutputsParams(json=job["schema"])
    llm.chat(job["conversations"], SamplingParams(**sampling), use_tqdm=False)


def _reply(output: Any) -> dict[str, Any]:
    answer = output.outputs[0]
    return {
        "number": int(output.request_id),  # counted from 0 over all jobs
        "text": answer.text,
        "finish_reason": answer.finish_reason or "",
        "prompt_tokens": len(output.prompt_token_ids),
        "completion_tokens": len(answer.token_ids),
    }


if __name__ == "__main__":
    main()
