"""Masking leaves entries out by chance: the same ones in a repeated run, in the share asked for, and nothing comes in their room."""

from hiexp_verl.config import Budgets, ToolConfig
from hiexp_verl.guide.episode import Guidance, GuidedEpisode
from hiexp_verl.guide.mask import Mask
from tests.support.factories import hit

MESSAGES = [{"role": "system", "content": "Answer."}, {"role": "user", "content": "Who?"}]


def played(mask, hits, searches=1, sample=0):
    budgets = Budgets(tool=ToolConfig(top_k=2))
    episode = GuidedEpisode(Guidance(budgets, mask=mask, hek="abc"), lambda request: list(hits), "Who?", "q1", sample)
    return episode, [episode.tool("a query", "Documents.") for _ in range(searches)]


def test_what_is_masked_is_recorded_and_not_shown():
    hits = [hit("e1-a", 0.9), hit("e1-b", 0.8), hit("e1-c", 0.7)]
    episode, (text,) = played(Mask(0.9999999), hits)
    assert text == "Documents."
    record = episode.record()
    assert [row["entry"] for row in record.masked] == ["e1-a", "e1-b"], "the third would not have been shown"
    assert (record.shown, record.hek, record.masked[0]["search"]) == ((), "abc", 1)


def test_nothing_comes_in_the_room_of_what_is_masked():
    hits = [hit("e1-a", 0.9), hit("e1-b", 0.8), hit("e1-c", 0.7)]
    kept = set()
    for sample in range(200):
        episode, (text,) = played(Mask(0.5, "key"), hits, sample=sample)
        shown, masked = ({row["entry"] for row in rows} for rows in (episode.shown, episode.masked))
        assert shown | masked == {"e1-a", "e1-b"} and not shown & masked
        assert all((f"Do {name}." in text) == (name in shown) for name in ("e1-a", "e1-b"))
        kept.add(frozenset(shown))
    assert len(kept) == 4, "every subset occurs"


def test_a_repeated_run_masks_the_same_and_an_entry_not_yet_shown_is_drawn_anew():
    hits = [hit("e1-a", 0.9)]
    mask = Mask(0.5, "key")
    first = [bool(played(mask, hits, sample=sample)[0].masked) for sample in range(100)]
    assert first == [bool(played(mask, hits, sample=sample)[0].masked) for sample in range(100)]
    assert first != [bool(played(Mask(0.5, "other"), hits, sample=sample)[0].masked) for sample in range(100)]
    both = [{row["search"] for row in played(mask, hits, searches=2, sample=sample)[0].masked} for sample in range(100)]
    assert {frozenset(each) for each in both} == {frozenset(), frozenset({1}), frozenset({1, 2})}


def test_the_share_is_kept_and_no_mask_hides_nothing():
    mask = Mask(0.1, "key")
    drawn = [mask.hides(f"{number:016x}", "q1/0", 1) for number in range(20_000)]
    assert abs(sum(drawn) / len(drawn) - 0.1) < 0.01
    assert not any(Mask(0.0).hides(f"{number:016x}", "q1/0", None) for number in range(1000))


def test_the_system_prompt_is_masked_too():
    hits = [hit("e2-a", 0.9, "e2")]
    guidance = Guidance(mask=Mask(0.9999999))
    episode = GuidedEpisode(guidance, lambda request: list(hits), "Who?", "q1")
    assert episode.system(MESSAGES) == MESSAGES
    assert [row["entry"] for row in episode.masked] == ["e2-a"] and episode.shown == []
