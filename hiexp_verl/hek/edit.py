"""Edit or remove entries by hand: a new HEK with its parent and the reason, to be saved as the next version."""

import logging
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from hiexp_verl.errors import HiExpError
from hiexp_verl.hek.store import HEK, current_version, version_folder
from hiexp_verl.models.encoder import Encoder
from hiexp_verl.text import sanitise
from hiexp_verl.types import MAX_DESCRIPTION_CHARS, MAX_TITLE_CHARS, Kind

logger = logging.getLogger(__name__)

_MAX_REASON_CHARS = 500
_LONG = 10_000  # above every limit: sanitise must not cut, what is too long is an error


def to_change(path: Path, root: Path) -> Path | None:
    """Return the current version, read before the HEK at `path` is, for `HEK.save`; a warning where `path` is another version.

    A change of another one hides what came after it.
    """
    current = current_version(root)
    if current is not None and version_folder(path).resolve() != current.resolve():
        logger.warning("%s is not the current version, %s: the new version will have nothing of what came after it", path, current.name)
    return current


def edit(
    hek: HEK,
    entry_id: str,
    reason: str,
    *,
    title: str | None = None,
    description: str | None = None,
    kind: Kind | None = None,
    when: Sequence[str] | None = None,
    encoder: Encoder | None = None,
) -> HEK:
    """Return the HEK with one entry changed; a new title needs the encoder, and a new description ends the plan that it replaces.

    Raises:
        HiExpError: no such entry, no reason, a text that is empty or too long, an unknown precondition or one that is not of an E1,
            no change, or another encoder.
    """
    before = hek.entry(entry_id)
    after = replace(
        before,
        title=before.title if title is None else _text(title, "title", MAX_TITLE_CHARS),
        description=before.description if description is None else _text(description, "description", MAX_DESCRIPTION_CHARS),
        kind=kind or before.kind,
        when=before.when if when is None else tuple(when),
    )
    if after.description != before.description:  # a plan is shown in its words alone
        after = replace(after, plans=tuple(plan for plan in before.plans if plan.sentence in after.description))
    if after == before:
        raise HiExpError(f"nothing would change in {entry_id}; give another title, description, kind or other preconditions")
    row = hek.entries.index(before)
    vectors_E_D = hek.vectors_E_D.copy()
    if after.title != before.title:
        if encoder is None:
            raise HiExpError(f"a new title of {entry_id} needs the encoder {hek.header.encoder.name!r} of the HEK; give it")
        hek.check_encoder(encoder.identity)
        vectors_E_D[row] = encoder.encode_passages([after.title])[0]
    entries = (*hek.entries[:row], after, *hek.entries[row + 1 :])
    return replace(_child(hek, f"edit {entry_id}", reason), entries=entries, vectors_E_D=vectors_E_D)


def remove(hek: HEK, entry_ids: Sequence[str], reason: str, with_orphans: bool = False) -> HEK:
    """Return the HEK without these entries, links to them and sources that no other entry uses.

    Entries that summarised them keep their `questions` and `sources`, since their text does not change. An entry that would lose
    all its children is removed with `with_orphans`, and an error otherwise.

    Raises:
        HiExpError: no such entry, no reason, a parent without children would remain, or no entry at all.
    """
    gone = {hek.entry(entry_id).id for entry_id in entry_ids}
    while orphans := {entry.id for entry in hek.entries if entry.id not in gone and entry.children and gone.issuperset(entry.children)}:
        if not with_orphans:
            raise HiExpError(f"{', '.join(sorted(orphans))} would lose all its children; remove it too, or give --with-orphans")
        gone |= orphans
    rows = [row for row, entry in enumerate(hek.entries) if entry.id not in gone]
    if not rows:
        raise HiExpError("no entry would be left; a HEK needs at least one")
    child = _child(hek, f"remove {', '.join(sorted(gone))}", reason)
    kept = [hek.entries[row] for row in rows]
    left = tuple(replace(entry, children=tuple(child for child in entry.children if child not in gone)) for entry in kept)
    used = {source for entry in left for source in (*entry.sources, *(evidence.trajectory for evidence in entry.evidence))}
    sources = tuple(source for source in hek.sources if source.id in used)
    return replace(child, entries=left, vectors_E_D=hek.vectors_E_D[rows], sources=sources)


def _child(hek: HEK, what: str, reason: str) -> HEK:
    why = sanitise(reason, _MAX_REASON_CHARS)
    if not why:
        raise HiExpError("the reason is empty; give a few words")
    header = replace(hek.header, parents=(hek.content_hash(),), reason=f"{what}: {why}")
    return replace(hek, header=header)


def _text(text: str, what: str, max_chars: int) -> str:
    cleaned = sanitise(text, _LONG)
    if not cleaned:
        raise HiExpError(f"the {what} is empty; write one, or remove the entry")
    if len(cleaned) > max_chars:
        raise HiExpError(f"the {what} has {len(cleaned)} characters; shorten it to {max_chars}")
    return cleaned
