"""What is known of a candidate before it is played."""

from hiexp_verl.evolve.background import self_sourced
from hiexp_verl.models.encoder import HashEncoder
from tests.support.factories import entry, hek_of, trajectory


def test_an_entry_is_self_sourced_if_every_rollout_behind_it_was_shown_experience():
    seen = [{"entry": "e2-0001", "content": "0a", "level": "e2", "score": 0.9, "place": "prompt", "tokens": 9}]
    rollouts = [trajectory(id="q1#0"), trajectory(id="q1#1", extra={"shown": seen}), trajectory(id="q1#2", extra={"shown": seen})]
    sources = {"both": ("q1#0", "q1#1"), "guided": ("q1#1", "q1#2"), "old": ("q1#1",), "none": ()}
    hek = hek_of([entry(f"e1-{name}", title=name, sources=ids) for name, ids in sources.items()], HashEncoder(16))
    came = frozenset(each.content_id for each in hek.entries if each.title != "old")
    assert self_sourced(hek, came, rollouts) == 0.5, "of both and guided; one was there before, one has no sources"
    assert self_sourced(hek, frozenset(), rollouts) == 0.0
