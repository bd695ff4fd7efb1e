"""A build on a Ray cluster gives the bytes of a build in one process."""

import pytest

pytestmark = pytest.mark.verl
ray = pytest.importorskip("ray")

from hiexp_verl.distil.pipeline import distil
from hiexp_verl.distil.ray import RayEncoder, connect, ray_map
from hiexp_verl.distil.rules import RulesDistiller
from hiexp_verl.errors import HiExpError
from hiexp_verl.models.encoder import CHUNK, HashEncoder
from tests.support.episodes import episode, two_hops


@pytest.fixture(scope="module")
def cluster():
    ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False, configure_logging=False)
    yield
    ray.shutdown()


def trajectories():
    peaks = ("Noshak", "Everest", "Elbrus", "Triglav")
    asked = {peak: f"What is the capital of the country whose highest point is {peak}?" for peak in peaks}
    for peak, question in asked.items():
        yield two_hops(question_id=peak, question=question, number=0)
        yield episode(("Noshak highest point country", "peak"), answer="Tehran", question_id=peak, question=question, number=1)
        yield episode(answer="Rome", question_id=peak, question=question, number=2)


def test_ray_or_not_the_hek_is_the_same(cluster, tmp_path):
    connect()
    here = distil(trajectories(), RulesDistiller(), HashEncoder(64)).hek.save(tmp_path / "here")
    encoder = RayEncoder("hash:64")
    there = distil(trajectories(), RulesDistiller(), encoder, map_contrasts=ray_map).hek.save(tmp_path / "there")
    names = sorted(path.name for path in here.iterdir())
    assert names == sorted(path.name for path in there.iterdir())
    assert all((here / name).read_bytes() == (there / name).read_bytes() for name in names)


def test_texts_keep_their_order_across_tasks(cluster):
    texts = [f"text {i}" for i in range(2 * CHUNK + 3)]
    encoder = RayEncoder("hash:64")
    assert (encoder.encode_passages(texts) == HashEncoder(64).encode_passages(texts)).all()
    assert encoder.encode_queries([]).shape == (0, 64)


def test_what_a_task_raises_is_raised_here(cluster):
    def fail(item):
        raise HiExpError(f"bad {item}")

    with pytest.raises(HiExpError, match="bad 1"):
        ray_map(fail, [1])


def test_without_a_cluster_the_user_is_told(monkeypatch):
    monkeypatch.setattr(ray, "is_initialized", lambda: False)
    with pytest.raises(HiExpError, match="ray start --head"):
        connect("127.0.0.1:9")
