"""The hierarchical experience knowledge (HEK): on disk, in memory, retrieved from, changed, shown."""

from hiexp_verl.hek.retrieve import Retriever
from hiexp_verl.hek.store import HEK, Header
from hiexp_verl.hek.text_view import inspect_entry, inspect_hek

__all__ = ["HEK", "Header", "Retriever", "inspect_entry", "inspect_hek"]
