"""The versions of a HEK: list and rollback. No version is ever changed or deleted."""

from dataclasses import dataclass
from pathlib import Path

from hiexp_verl.errors import HiExpError
from hiexp_verl.hek.store import HEK, check_unchanged, current_version, root_of, set_current
from hiexp_verl.io.files import locked
from hiexp_verl.types import LEVELS


@dataclass(frozen=True)
class Version:
    """One version, as `hiexp versions` shows it."""

    name: str  # "0002"
    is_current: bool
    levels: dict[str, int]  # number of entries per level
    parents: tuple[str, ...]  # names of the versions it was made from where they lie here, otherwise content hashes
    reason: str
    content_hash: str
    fault: str = ""  # why it does not load; all but name and is_current are empty then


def versions(path: Path) -> list[Version]:
    """Return the versions of a HEK, oldest first; one that does not load is among them, with its fault.

    Raises:
        HiExpError: there is no HEK at `path`.
    """
    root = root_of(path)
    current = current_version(root)
    listed: list[Version] = []
    name_of: dict[str, str] = {}
    for name in _names(root):
        try:
            hek = HEK.load(root / name)
        except HiExpError as error:
            listed.append(Version(name, root / name == current, {}, (), "", "", str(error)))
            continue
        header = hek.header
        parents = tuple(name_of.get(parent, parent) for parent in header.parents)
        listed.append(Version(name, root / name == current, hek.levels, parents, header.reason, header.content_hash))
        name_of[header.content_hash] = name
    return listed


def versions_text(listed: list[Version]) -> str:
    """Return one line per version, the current one marked."""
    lines = []
    for version in listed:
        counts = ", ".join(f"{version.levels.get(level, 0)} {level.upper()}" for level in LEVELS)
        origin = f"from {' and '.join(parent[:12] for parent in version.parents)}" if version.parents else "built"
        state = f"damaged: {version.fault}" if version.fault else f"{counts}; {origin}{': ' if version.reason else ''}{version.reason}"
        lines.append(f"{'*' if version.is_current else ' '} {version.name}  {state}")
    return "\n".join(lines)


def rollback(path: Path, to: str | None = None) -> Path:
    """Point CURRENT at another version and return its directory; without `to`, at the one that the current one was made from.

    A version that was built and not made from another goes back to the number before it.

    Raises:
        HiExpError: there is no such version, it does not load, or there is none before.
    """
    root = root_of(path)
    since = current_version(root)
    name = _before(root) if to is None else next((name for name in _names(root) if to.isdecimal() and int(to) == int(name)), None)
    if name is None:
        raise HiExpError(f"HEK {root} has no version {to!r}; it has {', '.join(_names(root)) or 'none'}")
    HEK.load(root / name)
    with locked(root):
        if to is None:
            check_unchanged(root, since)
        set_current(root, name)
    return root / name


def _before(root: Path) -> str:
    listed = versions(root)
    names = [version.name for version in listed]
    current = next((version for version in listed if version.is_current), None)
    if current is None:
        raise HiExpError(f"HEK {root}: CURRENT names no version; choose one with --to ({', '.join(names) or 'none'})")
    earlier = [name for name in current.parents if name in names] or [name for name in names if int(name) < int(current.name)]
    if not earlier:
        raise HiExpError(f"HEK {root}: there is no version before {current.name}; name one with --to")
    return earlier[-1]


def _names(root: Path) -> list[str]:
    return sorted((folder.name for folder in root.iterdir() if folder.name.isdecimal() and folder.is_dir()), key=int)
