"""Merge two HEKs: near-duplicates are united, sources are kept, clusters are not recomputed.

| what | in the merged HEK |
| --- | --- |
| entries | those of A, then those of B that A does not have, level by level, with new ids |
| near-duplicates | as similar as for `build`: B's entry goes into the closest of A, which keeps its words and its vector |
| thresholds | the stricter: the higher minimum score and percentile, the lower height of a linkage; `reason` names the differing ones |
| parents | the content hashes of both |
| ids | where a question or trajectory id means two things, a prefix is needed |
"""

from collections.abc import Iterable, Mapping
from dataclasses import replace

import numpy as np

from hiexp_verl.distil.entries import hops_of, number, united
from hiexp_verl.distil.pipeline import DistilSettings
from hiexp_verl.errors import HiExpError
from hiexp_verl.hek.same_question import near_duplicates
from hiexp_verl.hek.schema import Header
from hiexp_verl.hek.store import HEK
from hiexp_verl.models.encoder import Encoder, Vectors
from hiexp_verl.scoring import normalise
from hiexp_verl.types import LEVELS, Entry, Level


def with_own_ids(hek: HEK, other: HEK, prefix: str = "") -> HEK:
    """Return the HEK such that no id of a question or trajectory means one thing in it and another in `other`.

    Where ids of questions do, the prefix is put before all question ids of the HEK; the same for trajectories. Runs on the
    same questions ("q1#0" in both) thus keep the question ids, by which training hides a question's own experience.

    Raises:
        HiExpError: ids clash and there is no prefix, or they clash with it too.
    """
    clashes = _clashes(hek, other)
    if not any(clashes.values()):
        return hek
    if not prefix:
        what, ids = next((what, ids) for what, ids in clashes.items() if ids)
        raise HiExpError(f"the {what} id {ids[0]!r} means another {what} in each HEK ({len(ids)} such); give --prefix for the second")
    renamed = _prefixed(hek, prefix if clashes["question"] else "", prefix if clashes["trajectory"] else "")
    if any(_clashes(renamed, other).values()):
        raise HiExpError(f"with the prefix {prefix!r} ids of the second HEK still mean other things in the first; give another one")
    return renamed


def _clashes(hek: HEK, other: HEK) -> dict[str, list[str]]:
    questions = [{source.question_id: normalise(source.question) for source in each.sources} for each in (hek, other)]
    trajectories = [{source.id: replace(source, question=normalise(source.question)) for source in each.sources} for each in (hek, other)]
    return {"question": _differing(*questions), "trajectory": _differing(*trajectories)}


def _differing(one: Mapping[str, object], two: Mapping[str, object]) -> list[str]:
    return [key for key, value in one.items() if key in two and two[key] != value]


def _prefixed(hek: HEK, for_questions: str, for_trajectories: str) -> HEK:
    def questions(ids: Iterable[str]) -> tuple[str, ...]:
        return tuple(for_questions + each for each in ids)

    def trajectories(ids: Iterable[str]) -> tuple[str, ...]:
        return tuple(for_trajectories + each for each in ids)

    entries = tuple(
        replace(
            entry,
            questions=questions(entry.questions),
            sources=trajectories(entry.sources),
            evidence=tuple(replace(each, trajectory=for_trajectories + each.trajectory) for each in entry.evidence),
        )
        for entry in hek.entries
    )
    sources = tuple(replace(s, id=for_trajectories + s.id, question_id=for_questions + s.question_id) for s in hek.sources)
    duplicates = {for_questions + question: questions(others) for question, others in hek.header.near_duplicates.items()}
    return replace(hek, header=replace(hek.header, near_duplicates=duplicates), entries=entries, sources=sources)


_ANY = -1.0  # a cosine that every pair reaches


def merge_heks(a: HEK, b: HEK, encoder: Encoder, prefix: str = "") -> HEK:
    """Return the HEK of both (see the table above); `prefix` as in `with_own_ids`.

    Raises:
        HiExpError: another encoder, the same HEK twice, or an id that means one thing in A and another in B.
    """
    a.check_encoder(encoder.identity)
    b.check_encoder(encoder.identity)
    parents = (a.content_hash(), b.content_hash())
    if parents[0] == parents[1]:
        raise HiExpError("both HEKs are the same; there is nothing to merge")
    b = with_own_ids(b, a, prefix)
    entries: list[Entry] = []
    vectors: list[Vectors] = []
    counts: dict[str, int] = {}
    id_of: dict[str, str] = {}  # "a:e1-0001" -> id in the merged HEK
    for level in LEVELS:
        of_a, vectors_A_D = _level(a, level, "a:")
        of_b, vectors_B_D = _level(b, level, "b:")
        twin_of = _twins((of_a, vectors_A_D), (of_b, vectors_B_D), level, encoder)
        kept = [row for row in range(len(of_b)) if row not in twin_of]
        merged = [*of_a, *(of_b[row] for row in kept)]
        for row, twin in twin_of.items():
            merged[twin] = _joined(merged[twin], of_b[row])
        numbered = number(merged, level)
        id_of |= {old.id: new.id for old, new in zip(merged, numbered, strict=True)}
        id_of |= {of_b[row].id: numbered[twin].id for row, twin in twin_of.items()}
        entries += [replace(entry, children=tuple(dict.fromkeys(id_of[child] for child in entry.children))) for entry in numbered]
        vectors += [vectors_A_D, vectors_B_D[kept]]
        counts |= {f"first.{level}": len(of_a), f"second.{level}": len(of_b), f"both.{level}": len(twin_of)}
    sources = tuple({source.id: source for source in (*a.sources, *b.sources)}.values())
    return HEK(_header(a, b, parents, counts, encoder), tuple(entries), np.concatenate(vectors), sources)


def _level(hek: HEK, level: Level, mark: str) -> tuple[list[Entry], Vectors]:
    """Return entries and vectors of a level, with a mark before all entry ids."""
    rows = [row for row, entry in enumerate(hek.entries) if entry.level == level]
    entries = [hek.entries[row] for row in rows]
    marked = [replace(entry, id=mark + entry.id, children=tuple(mark + child for child in entry.children)) for entry in entries]
    return marked, hek.vectors_E_D[rows]


def _twins(a: tuple[list[Entry], Vectors], b: tuple[list[Entry], Vectors], level: Level, encoder: Encoder) -> dict[int, int]:
    """Return, for each row of B that is a near-duplicate of one in A, the closest such row of A."""
    (of_a, titles_A_D), (of_b, titles_B_D) = a, b
    if not of_a or not of_b:
        return {}
    config = DistilSettings()
    title_cosine, description_cosine = {
        "e1": (config.merge_cosine, config.merge_cosine),
        "e2": (_ANY, config.pattern.merge_cosine),
        "e3": (_ANY, config.strategy.merge_cosine),
    }[level]
    descriptions_A_D = encoder.encode_passages([entry.description for entry in of_a])
    descriptions_B_D = encoder.encode_passages([entry.description for entry in of_b])
    hops_A, hops_B = hops_of(of_a), hops_of(of_b)
    twin_of: dict[int, int] = {}
    for row in range(len(of_b)):
        title_A, description_A = titles_A_D @ titles_B_D[row], descriptions_A_D @ descriptions_B_D[row]
        close_A = (title_A >= title_cosine) & (description_A >= description_cosine) & (hops_A == hops_B[row])
        if close_A.any():
            twin_of[row] = int(np.argmax(np.where(close_A, title_A + description_A, -np.inf)))
    return twin_of


def _joined(mine: Entry, other: Entry) -> Entry:
    joined = united(mine, other)
    # The same entry of a common ancestor is no near-duplicate that came in addition.
    same = replace(mine, id="", children=()) == replace(other, id="", children=())
    return replace(joined, counters=mine.counters) if same else joined


def _header(a: HEK, b: HEK, parents: tuple[str, str], counts: dict[str, int], encoder: Encoder) -> Header:
    one, two = a.header, b.header
    texts = {source.question_id: source.question for source in (*a.sources, *b.sources)}
    thresholds = {name: _stricter(name, one.thresholds, two.thresholds) for name in {**one.thresholds, **two.thresholds}}
    differed = [f"{name} {value:g}" for name, value in sorted(thresholds.items()) if one.thresholds.get(name) != two.thresholds.get(name)]
    note = f"; of thresholds that differed, the stricter: {', '.join(differed)}" if differed else ""
    return Header(
        encoder=one.encoder,
        thresholds=thresholds,
        distiller=", ".join(dict.fromkeys(name for name in (one.distiller, two.distiller) if name)),
        models=tuple(sorted({*one.models, *two.models})),
        prompts=_prompts(one.prompts, two.prompts),
        counts=counts,
        near_duplicates=_groups(one.near_duplicates, two.near_duplicates, near_duplicates(texts, encoder)),
        parents=parents,
        reason=f"merge of {parents[0][:12]} and {parents[1][:12]}{note}",
    )


def _stricter(name: str, one: dict[str, float], two: dict[str, float]) -> float:
    values = [thresholds[name] for thresholds in (one, two) if name in thresholds]
    return min(values) if name.endswith("_max_height") else max(values)


def _prompts(one: dict[str, str], two: dict[str, str]) -> dict[str, str]:
    """Unite the prompts; where the two versions of a file differ, the second stands under its name and hash."""
    others = {f"{name} {sha256[:12]}" if one.get(name, sha256) != sha256 else name: sha256 for name, sha256 in two.items()}
    return dict(sorted((one | others).items()))


def _groups(*links: Mapping[str, tuple[str, ...]]) -> dict[str, tuple[str, ...]]:
    """Unite groups that share a question: what is the same as the same is the same."""
    group_of: dict[str, set[str]] = {}
    for question, others in (item for each in links for item in each.items()):
        group = {question, *others}.union(*(group_of.get(each, ()) for each in (question, *others)))
        group_of |= dict.fromkeys(group, group)
    return {question: tuple(sorted(group - {question})) for question, group in sorted(group_of.items())}
