"""What an import has seen: duplicates, ids used twice, labels that contradict each other."""

from collections import Counter
from dataclasses import replace

from hiexp_verl.hashing import digest_of
from hiexp_verl.rows import BadRow
from hiexp_verl.types import Trajectory

Place = tuple[int, int]  # number of the file, line
CONTRADICTORY = "contradictory labels"
_PLACE_BITS = 40  # of the line, when a place is kept as one integer


class Ledger:
    """Remembers two 16-byte digests per trajectory, three where it has no id: 400 to 600 bytes in all; never the trajectory."""

    def __init__(self) -> None:
        self.contradicted: set[bytes] = set()  # contents with both labels: no copy of them may stay
        self._labels: dict[bytes, tuple[int, bool]] = {}  # content -> where it was first, and its label
        self._ids: dict[bytes, tuple[int, bytes]] = {}  # id -> where it was first, and the content
        self._samples: Counter[str] = Counter()

    def enter(self, trajectory: Trajectory, place: Place) -> tuple[Trajectory, bytes]:
        """Return the trajectory with an id, and the digest of its content: question and messages.

        Raises:
            Seen: it is a duplicate, its id belongs to another trajectory, or its label contradicts a copy's.
        """
        content = digest_of(trajectory.question, trajectory.messages)
        packed = place[0] << _PLACE_BITS | place[1]
        first, label = self._labels.setdefault(content, (packed, trajectory.correct))
        if label != trajectory.correct:
            self.contradicted.add(content)
            raise Seen(CONTRADICTORY, first)
        # Without an id of its own, a trajectory is known by its content and its model.
        key = digest_of("id", trajectory.id) if trajectory.id else digest_of("content", content.hex(), trajectory.model)
        if key in self._ids:
            first, other = self._ids[key]
            raise Seen("duplicate" if other == content else "the id belongs to another trajectory", first)
        self._ids[key] = packed, content
        return (trajectory if trajectory.id else self._numbered(trajectory, packed, content)), content

    def _numbered(self, trajectory: Trajectory, packed: int, content: bytes) -> Trajectory:
        while True:
            numbered = replace(trajectory, id=f"{trajectory.question_id}#{self._samples[trajectory.question_id]}")
            self._samples[trajectory.question_id] += 1
            key = digest_of("id", numbered.id)
            if key not in self._ids:
                self._ids[key] = packed, content
                return numbered


class Seen(BadRow):
    """A trajectory that cannot stand beside an earlier one."""

    def __init__(self, wrong: str, packed: int) -> None:
        super().__init__(wrong)
        self.first: Place = (packed >> _PLACE_BITS, packed & ((1 << _PLACE_BITS) - 1))
