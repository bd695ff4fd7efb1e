"""Under Ray every episode of a node shares one retrieval actor, and a failed search crosses it intact."""

import asyncio
import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest

pytestmark = pytest.mark.verl
ray = pytest.importorskip("ray")
pytest.importorskip("verl")

from hiexp_verl.cli.doctor import _node
from hiexp_verl.config import HiExpConfig, SearchConfig, parse_config
from hiexp_verl.guide.lookup import ExperienceRequest, LookupFailed
from hiexp_verl.plugin.retrieval import ActorRetrieval, retrieval_for
from hiexp_verl.search import SearchFailed
from tests.support.verl_fixtures import write_corpus, write_hek


@pytest.fixture(scope="module")
def cluster():
    ray.init(num_cpus=1, include_dashboard=False, log_to_driver=False, configure_logging=False)
    retrieval_for.cache_clear()
    yield
    retrieval_for.cache_clear()
    ray.shutdown()


def without_hek(**search):
    return HiExpConfig(enabled=False, search=SearchConfig(**search))


def test_one_actor_serves_the_node(cluster, tmp_path):
    settings = HiExpConfig(hek=str(write_hek(tmp_path / "hek")), search=SearchConfig(corpus=str(write_corpus(tmp_path / "c.jsonl"))))
    first = retrieval_for(settings)
    retrieval_for.cache_clear()  # as another worker process would see it
    second = retrieval_for(settings)
    assert isinstance(first, ActorRetrieval) and isinstance(second, ActorRetrieval)
    assert first.actor._actor_id == second.actor._actor_id

    async def ask():
        searches = [first.search("capital of Afghanistan", 1) for _ in range(20)]
        lookups = [second.experience(ExperienceRequest("tool", "highest point of a country")) for _ in range(20)]
        return await asyncio.gather(*searches, *lookups)

    answers = asyncio.run(ask())
    assert all(found[0].title == "Kabul" for found in answers[:20])
    assert all(found[0].entry.id == "e1-1" for found in answers[20:])


def test_a_look_up_that_fails_in_the_actor_is_raised_to_who_asked(cluster, tmp_path):
    retrieval = retrieval_for(without_hek(corpus=str(write_corpus(tmp_path / "c.jsonl"))))  # and no HEK

    async def ask():
        return await asyncio.gather(*(retrieval.experience(ExperienceRequest("tool", text)) for text in "ab"), return_exceptions=True)

    assert ["no HEK is loaded" in str(error) for error in asyncio.run(ask())] == [True, True]


def test_a_failed_search_keeps_its_reason_across_the_actor(cluster):
    retrieval = retrieval_for(without_hek(engine="http", url="http://127.0.0.1:9/retrieve", retries=0, timeout=1.0))

    async def ask():
        await retrieval.search("x", 1)

    with pytest.raises(SearchFailed) as error:
        asyncio.run(ask())
    assert error.value.reason == "unreachable"


def test_an_actor_that_is_started_again_holds_the_same_hek_or_fails(cluster, tmp_path):
    root = write_hek(tmp_path / "hek")
    retrieval = retrieval_for(HiExpConfig(hek=str(root), search=SearchConfig(corpus=str(write_corpus(tmp_path / "c.jsonl")))))

    def ids():
        async def ask():
            return await retrieval.experience(ExperienceRequest("tool", "the country of a point"))

        return [hit.entry.id for hit in asyncio.run(ask())]

    def die():
        pid = ray.get(retrieval.actor.__ray_call__.remote(lambda self: os.getpid()))
        ray.kill(retrieval.actor, no_restart=False)
        while Path(f"/proc/{pid}").exists():  # a killed actor may still answer what it has been asked
            time.sleep(0.05)

    assert ids() == ["e1-1"]
    write_hek(root, "Name the country.")  # its e1-2 would be found first
    die()
    assert ids() == ["e1-1"]
    shutil.rmtree(root)
    die()
    with pytest.raises(LookupFailed) as error:
        ids()
    assert error.value.reason == "retrieval died"
    with pytest.raises(SearchFailed, match="unreachable"):
        asyncio.run(retrieval.search("x", 1))


def test_several_actors_share_the_lookups_and_the_first_one_searches(cluster, tmp_path):
    block = {"hek": str(write_hek(tmp_path / "hek")), "search": {"corpus": str(write_corpus(tmp_path / "c.jsonl"))}}
    retrieval = retrieval_for(parse_config({**block, "encoder": {"actors": 2, "threads": 1}}))

    async def ask():
        lookups = [retrieval.experience(ExperienceRequest("tool", "highest point of a country")) for _ in range(6)]
        return await asyncio.gather(retrieval.search("capital of Afghanistan", 1), *lookups)

    passages, *hits = asyncio.run(ask())
    assert passages[0].title == "Kabul" and all(found[0].entry.id == "e1-1" for found in hits)
    names = [actor["name"] for actor in ray.util.list_named_actors(all_namespaces=True)]
    assert sum(name.startswith("hiexp_retrieval_") and name.endswith("_1") for name in names) == 1


def test_doctor_checks_every_node_of_a_running_cluster(cluster, tmp_path):
    hek = write_hek(tmp_path / "hek")
    address = ray.get_runtime_context().gcs_address
    code = "import json, sys; from hiexp_verl.cli.doctor import examine_nodes; from pathlib import Path; from dataclasses import asdict\n"
    code += "print(json.dumps([asdict(check) for check in examine_nodes(sys.argv[1], Path(sys.argv[2]))]))"
    done = subprocess.run([sys.executable, "-c", code, address, str(hek)], capture_output=True, text=True, check=True)
    (node,) = json.loads(done.stdout.splitlines()[-1])
    assert node["ok"] and node["name"].startswith("node ") and node["found"].endswith(str(hek.resolve()))
    assert _node(({"verl": "0.8.0", "numpy": "2"}, False), {"verl": "0.9.1", "numpy": "2"}, "/hek")[:2] == (
        False,
        "verl 0.8.0 (here 0.9.1), no /hek",
    )
