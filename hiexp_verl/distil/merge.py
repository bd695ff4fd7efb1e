"""Merge two HEKs: near-duplicates are united, sources are kept, clusters are not recomputed.

| what | in the merged HEK |
| --- | --- |
| entries | those of A, then those of B that A does not have, level by level, with new ids |
| near-duplicates | as similar as for `build`: B's entry goes into the closest of A, which keeps its words and its vector |
| thresholds | the stricter: the higher minimum score and percentile, the lower height of a linkage; `reason` names the differing ones |
| parents | the content hashes of both |
| ids | where a question or trajectory id means two things, a prefix is needed |
"""

from collections.abc import Mapping
from dataclasses import replace

import numpy as np

from hiexp_verl.distil.entries import NEAR, hops_of, number, united
from hiexp_verl.errors import HiExpError
from hiexp_verl.hek.same_question import near_duplicates, text_key
from hiexp_verl.hek.schema import Header
from hiexp_verl.hek.store import HEK
from hiexp_verl.models.encoder import Encoder, Vectors
from hiexp_verl.types import LEVELS, Entry, Level

_Level = tuple[list[Entry], Vectors]


def merge_heks(a: HEK, b: HEK, encoder: Encoder, prefix: str = "", other_domain: bool = False) -> HEK:
    """Return the HEK of both (see the table above).

    If question ids of B mean other questions in A, `prefix` is put before all question ids of B; the same for trajectory ids.
    Runs on the same questions ("q1#0" in both) thus keep the question ids, by which training hides a question's own experience.

    Raises:
        HiExpError: another encoder, another domain (unless `other_domain`: that of A is kept), the same HEK twice, or an id that
            means one thing in A and another in B.
    """
    a.check_encoder(encoder.identity)
    b.check_encoder(encoder.identity)
    if a.header.domain != b.header.domain and not other_domain:
        fault = f"the first HEK is of the domain {a.header.domain}, the second of {b.header.domain}"
        raise HiExpError(f"{fault}; merge HEKs of one domain, or take that of the first (--other-domain)")
    parents = (a.content_hash(), b.content_hash())
    if parents[0] == parents[1]:
        raise HiExpError("both HEKs are the same; there is nothing to merge")
    b = _with_own_ids(b, a, prefix)
    entries: list[Entry] = []
    vectors: list[Vectors] = []
    counts: dict[str, int] = {}
    ids_of_a: dict[str, str] = {}  # id -> id in the merged HEK
    ids_of_b: dict[str, str] = {}
    for level in LEVELS:
        of_a, of_b = _level(a, level, ids_of_a), _level(b, level, ids_of_b)
        duplicates = _duplicates(of_a, of_b, level, encoder)
        merged = list(of_a[0])
        rows = []  # of the entries of B in the merged level
        for row, entry in enumerate(of_b[0]):
            rows.append(duplicates.get(row, len(merged)))
            if row in duplicates:
                merged[rows[-1]] = _joined(merged[rows[-1]], entry)
            else:
                merged.append(entry)
        numbered = number(merged, level)
        ids_of_a |= {old.id: new.id for old, new in zip(of_a[0], numbered, strict=False)}
        ids_of_b |= {old.id: numbered[row].id for old, row in zip(of_b[0], rows, strict=True)}
        entries += numbered
        vectors += [of_a[1], np.delete(of_b[1], list(duplicates), axis=0)]
        counts |= {f"first.{level}": len(of_a[0]), f"second.{level}": len(of_b[0]), f"both.{level}": len(duplicates)}
    sources = tuple({source.id: source for source in (*a.sources, *b.sources)}.values())
    return HEK(_header(a, b, parents, counts, encoder), tuple(entries), np.concatenate(vectors), sources)


def _with_own_ids(hek: HEK, other: HEK, prefix: str) -> HEK:
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
    """Return the ids of questions and of trajectories that mean something else in the other HEK."""
    mine, theirs = (
        {
            "question": {source.question_id: text_key(source.question) for source in each.sources},
            "trajectory": {source.id: replace(source, question=text_key(source.question)) for source in each.sources},
        }
        for each in (hek, other)
    )
    return {what: [key for key, meaning in mine[what].items() if theirs[what].get(key, meaning) != meaning] for what in mine}


def _prefixed(hek: HEK, for_questions: str, for_trajectories: str) -> HEK:
    entries = tuple(
        replace(
            entry,
            questions=tuple(for_questions + question for question in entry.questions),
            sources=tuple(for_trajectories + source for source in entry.sources),
            evidence=tuple(replace(each, trajectory=for_trajectories + each.trajectory) for each in entry.evidence),
        )
        for entry in hek.entries
    )
    sources = tuple(replace(s, id=for_trajectories + s.id, question_id=for_questions + s.question_id) for s in hek.sources)
    links = hek.header.near_duplicates.items()
    duplicates = {for_questions + question: tuple(for_questions + other for other in others) for question, others in links}
    return replace(hek, header=replace(hek.header, near_duplicates=duplicates), entries=entries, sources=sources)


def _level(hek: HEK, level: Level, ids: Mapping[str, str]) -> _Level:
    """Return entries and vectors of a level, with the children by their ids in the merged HEK."""
    rows = [row for row, entry in enumerate(hek.entries) if entry.level == level]
    entries = [hek.entries[row] for row in rows]
    return [replace(entry, children=tuple(dict.fromkeys(ids[child] for child in entry.children))) for entry in entries], hek.vectors_E_D[
        rows
    ]


def _duplicates(a: _Level, b: _Level, level: Level, encoder: Encoder) -> dict[int, int]:
    """Return, for each row of B that is a near-duplicate of one in A, the closest such row of A."""
    (of_a, titles_A_D), (of_b, titles_B_D) = a, b
    if not of_a or not of_b:
        return {}
    title_cosine, description_cosine = NEAR[level]
    descriptions_A_D, descriptions_B_D = (encoder.encode_passages([entry.description for entry in each]) for each in (of_a, of_b))
    hops_A, hops_B = hops_of(of_a), hops_of(of_b)
    found: dict[int, int] = {}
    for row in range(len(of_b)):
        title_A, description_A = titles_A_D @ titles_B_D[row], descriptions_A_D @ descriptions_B_D[row]
        close_A = (title_A >= title_cosine) & (description_A >= description_cosine) & (hops_A == hops_B[row])
        if close_A.any():
            found[row] = int(np.argmax(np.where(close_A, title_A + description_A, -np.inf)))
    return found


def _joined(mine: Entry, other: Entry) -> Entry:
    joined = united(mine, other)
    # The same entry of a common ancestor does not count as a near-duplicate.
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
        domain=one.domain,
        reason=f"merge of {parents[0][:12]} and {parents[1][:12]}{note}",
    )


def _stricter(name: str, one: dict[str, float], two: dict[str, float]) -> float:
    values = [thresholds[name] for thresholds in (one, two) if name in thresholds]
    return min(values) if name.endswith("_max_height") else max(values)


def _prompts(one: dict[str, str], two: dict[str, str]) -> dict[str, str]:
    """Unite the prompts; where the two versions of a file differ, the second is named by file and hash."""
    others = {f"{name} {sha256[:12]}" if one.get(name, sha256) != sha256 else name: sha256 for name, sha256 in two.items()}
    return dict(sorted((one | others).items()))


def _groups(*links: Mapping[str, tuple[str, ...]]) -> dict[str, tuple[str, ...]]:
    """Unite groups of near-duplicate questions that share one."""
    group_of: dict[str, set[str]] = {}
    for question, others in (item for each in links for item in each.items()):
        group = {question, *others}.union(*(group_of.get(each, ()) for each in (question, *others)))
        group_of |= dict.fromkeys(group, group)
    return {question: tuple(sorted(group - {question})) for question, group in sorted(group_of.items())}
