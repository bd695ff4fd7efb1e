"""One question with two searches, played by an agent loop with a policy that recites its turns."""

from hiexp_verl.models.chat import Reply
from tests.support.verl_fixtures import SYSTEM, RecitingServer, agent_loop, compose, play

TURNS = {
    "search_tags": [
        "<think>Which country?</think>\n<search> Noshak highest point country </search>",
        "<think>Afghanistan.</think>\n<search> capital of Afghanistan </search>",
        "<answer> Kabul </answer>",
    ],
    "hermes": [
        '<tool_call>\n{"name": "search", "arguments": {"query": "Noshak highest point country"}}\n</tool_call>',
        '<tool_call>\n{"name": "search", "arguments": {"query": "capital of Afghanistan"}}\n</tool_call>',
        "<answer> Kabul </answer>",
    ],
}


QUESTION = "What is the capital of the country whose highest point is Noshak?"


def config_of(paths, dialect, *overrides):
    return compose(
        "+hiexp=grpo",
        "actor_rollout_ref.rollout.name=vllm",
        f"actor_rollout_ref.rollout.multi_turn.format={dialect}",
        f"hiexp.search.corpus={paths['corpus']}",
        f"hiexp.hek={paths['hek']}",
        "hiexp.search.top_k=2",
        "hiexp.prompt.top_k=5",
        "data.max_prompt_length=4096",
        "data.max_response_length=8192",
        *overrides,
    )


def run(cls, config, tokenizer, turns, question_id="val-1", user=QUESTION, extra_info=None, session=0):
    server = RecitingServer(tokenizer, turns)
    prompt = [{"role": "system", "content": SYSTEM}, {"role": "user", "content": user}]
    extra_info = {"question_id": question_id, "question": QUESTION} if extra_info is None else extra_info
    row = {"raw_prompt": prompt, "extra_info": extra_info, "session_id": session, "global_steps": 3}
    output = play(agent_loop(cls, config, server, tokenizer), **row)
    assert prompt == [{"role": "system", "content": SYSTEM}, {"role": "user", "content": user}], "shared prompt changed"
    return output, server


class Reciting:
    """The policy of an episode without verl; the server stops after a call, as ours do."""

    model = "reciting"

    def __init__(self, turns):
        self.turns = iter(turns)

    async def chat(self, messages, *, stop, **_):
        before, closed, _ = next(self.turns).partition(stop[0])
        return Reply(before + closed, "stop", 1)
