"""The hierarchical experience knowledge (HEK): on disk, in memory, retrieved from, changed, shown."""

from hiexp_verl.hek.inspect import inspect_entry, inspect_hek
from hiexp_verl.hek.retrieve import Retriever
from hiexp_verl.hek.store import HEK, Header

__all__ = ["HEK", "Header", "Retriever", "inspect_entry", "inspect_hek"]
