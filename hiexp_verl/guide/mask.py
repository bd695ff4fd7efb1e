"""Masking: a few entries are left out by chance where they would have been shown, which measures what showing does.

Retrieval is no random choice: an episode in trouble looks up more. Masking is (ASSAY, arXiv:2606.15390).
"""

import hashlib
from dataclasses import dataclass


@dataclass(frozen=True)
class Mask:
    """Leaves an entry out with the probability `share`; the same in every run with the same key, question and rollout."""

    share: float
    key: str = ""  # of the run and the step

    def hides(self, content: str, episode: str, search: int | None) -> bool:
        """Return whether the entry with this content id is left out at a place: a search of an episode, or its system prompt."""
        drawn = hashlib.blake2b(f"{self.key}/{episode}/{search}/{content}".encode("utf-8", "replace"), digest_size=4).digest()
        return int.from_bytes(drawn, "little") < self.share * 2**32
