"""The policy's own servers as the distiller: no answer is in flight while they sleep, and the builder gets what they write."""

import asyncio
import json
from dataclasses import replace
from types import SimpleNamespace

import pytest
import ray

from hiexp_verl.errors import HiExpError
from hiexp_verl.hek import HEK
from hiexp_verl.models.chat_replies import Reply
from hiexp_verl.plugin import loop as module
from hiexp_verl.plugin.policy_gate import Gate, Gatekeeper, PolicyModel
from tests.support.peaks import builder_task
from tests.support.scripted_distiller import GOOD

SAMPLING = {"temperature": 0.0, "seed": 0, "max_tokens": 4}


class Server:
    """Stands in for verl's client; aborts what is in flight when it is put to sleep, and counts what meets it asleep."""

    def __init__(self):
        self.awake, self.met_asleep, self.answers, self.aborts = True, 0, 0, 0

    async def generate(self, request_id, prompt_ids, sampling_params):
        self.met_asleep += not self.awake
        for _ in range(5):
            await asyncio.sleep(0.002)
            if not self.awake:
                self.aborts += 1
                return SimpleNamespace(stop_reason="aborted", token_ids=prompt_ids[:1])
        self.answers += 1
        return SimpleNamespace(stop_reason="completed", token_ids=[*prompt_ids, sampling_params["max_tokens"]])


def test_no_request_is_in_flight_while_the_servers_sleep_and_each_is_answered_once():
    async def run():
        server = Server()
        gate = Gate(server)
        asked = [asyncio.ensure_future(gate.ask([number], SAMPLING)) for number in range(20)]
        await asyncio.sleep(0.01)
        assert server.answers == 0, "closed until it is opened"
        for _ in range(6):
            await gate.open()
            await gate.close(0.0)  # a waiting request that was woken meanwhile stays outside
            assert await gate.close(5.0) == 0
            server.awake = False
            await asyncio.sleep(0.005)
            server.awake = True
        await gate.open()
        assert await asyncio.gather(*asked) == [[number, 4] for number in range(20)]
        assert (server.met_asleep, server.aborts, server.answers) == (0, 0, 20)

    asyncio.run(run())


def test_an_answer_that_is_aborted_is_asked_for_again_when_the_gate_opens():
    async def run():
        server = Server()
        gate = Gate(server)
        await gate.open()
        asked = asyncio.ensure_future(gate.ask([7], SAMPLING))
        await asyncio.sleep(0.003)
        assert await gate.close(0.0) == 1, "it takes longer than one waits"
        server.awake = False
        await asyncio.sleep(0.02)
        server.awake = True
        await gate.open()
        assert await asked == [7, 4] and (server.aborts, server.met_asleep) == (1, 0)

    asyncio.run(run())


def test_a_server_that_fails_leaves_the_gate_free():
    async def run():
        async def generate(**_):
            raise ValueError("no room")

        gate = Gate(SimpleNamespace(generate=generate))
        await gate.open()
        with pytest.raises(ValueError, match="no room"):
            await gate.ask([1], SAMPLING)
        assert await gate.close(0.0) == 0

    asyncio.run(run())


class Letters:
    """A tokenizer whose tokens are characters."""

    def apply_chat_template(self, messages, tools, **_):
        return {"input_ids": [ord(c) for message in messages for c in message["content"]]}

    def decode(self, ids, skip_special_tokens):
        return "".join(map(chr, ids))


class Writer:
    """Verl's client of a policy that writes one entry again and again."""

    async def generate(self, request_id, prompt_ids, sampling_params):
        return SimpleNamespace(stop_reason="completed", token_ids=[ord(c) for c in json.dumps(GOOD)])


@pytest.fixture
def cluster():
    ray.init(num_cpus=1, include_dashboard=False, ignore_reinit_error=True)
    yield
    ray.shutdown()


def test_answers_come_in_order_and_what_does_not_fit_is_empty(cluster):
    keeper = Gatekeeper(Server())
    keeper.open()
    model, seen = PolicyModel(keeper.gate, Letters(), {}, 10), []
    texts = [[{"role": "user", "content": each}] for each in ("abc", "abcdefgh", "de")]
    given = model.complete(texts, **SAMPLING, schema={}, progress="E1", on_reply=lambda index, reply: seen.append((index, reply)))
    assert given == ["abc\x04", "", "de\x04"], "8 tokens and 4 are more than 10"
    assert seen[0] == (0, Reply("abc\x04", "stop", 4, 3)) and seen[1] == (1, Reply("", "length", 0, 8))
    keeper.close()
    ray.kill(keeper.gate)
    with pytest.raises(HiExpError, match=r"^the policy's servers did not answer the distiller"):
        model.complete(texts, **SAMPLING)
    keeper.close()  # a warning: the step goes on


def test_the_builder_waits_for_the_gate_and_makes_a_candidate_of_what_the_policy_writes(cluster, tmp_path):
    task, _ = builder_task(tmp_path)
    task = replace(task, config=replace(task.config, distiller="policy"))
    keeper = Gatekeeper(Writer())
    policy = PolicyModel(keeper.gate, Letters(), {}, None)
    building = ray.remote(num_cpus=0, max_calls=1)(module._make_candidate).remote(task, policy)
    ready, _ = ray.wait([building], timeout=4)
    assert not ready, "the servers sleep"
    keeper.open()
    made = ray.get(building, timeout=60)
    assert made.path and HEK.load(made.path).header.distiller == "policy", made.why
