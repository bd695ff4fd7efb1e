"""Where the encoder of a HEK lies on this machine.

A HEK names its encoder by content, not by place, so that it can be moved and compared. The place is a hint beside the
versions (`ENCODER`), outside what is hashed.
"""

from pathlib import Path

from hiexp_verl.jsonl_write import cache_dir
from hiexp_verl.encoder import Encoder, load_encoder
from hiexp_verl.errors import HiExpError
from hiexp_verl.hek.lock import locked
from hiexp_verl.hek.store import HEK
from hiexp_verl.jsonl import atomic_writer

HINT = "ENCODER"


def remember_encoder(root: Path, spec: str) -> None:
    """Note beside the versions of a HEK which directory or name its encoder was opened from."""
    where = str(Path(spec).resolve()) if Path(spec).is_dir() else spec
    with locked(root), atomic_writer(root / HINT) as file:
        file.write(where + "\n")


def find_encoder(hek: HEK, path: Path, spec: str | None = None) -> str:
    """Return the directory or name to open: the one given, the builder's if it is still there, the cache's, the name."""
    if spec:
        return spec
    for hint in (path / HINT, path.parent / HINT):
        if hint.is_file():
            remembered = hint.read_text(encoding="utf-8").strip()
            if Path(remembered).is_dir() or not remembered.startswith("/"):
                return remembered
    name = hek.header.encoder.name
    cached = cache_dir() / name
    return str(cached) if cached.is_dir() else name


def open_encoder(hek: HEK, path: Path, spec: str | None = None) -> Encoder:
    """Open the encoder that the HEK at `path` was made with, and check that it is the one.

    Raises:
        HiExpError: it cannot be found or is another one.
    """
    found = find_encoder(hek, path, spec)
    try:
        encoder = load_encoder(found)
    except HiExpError as error:
        hint = "" if spec else f"; say where the encoder {hek.header.encoder.name!r} of this HEK lies (--encoder, or hiexp.encoder=DIR)"
        raise HiExpError(f"{error}{hint}") from error
    hek.check_encoder(encoder.identity)
    return encoder
