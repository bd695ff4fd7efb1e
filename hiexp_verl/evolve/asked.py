"""Which questions a round of an evolution asks: in a drawn order, or those of thin kinds first (`--explore`).

The kind of a question is the E2 that a look-up would show for it, by its title; a kind without one is thinnest of all. Next comes a
question of the kind with the fewest questions behind it, those asked so far included; of its questions the one that was asked least
often, then the one with the largest p (1 - p), where p is its mean reward without experience (one half before it was played): a
question that is always right, or never, says nothing.
"""

import random
from collections import Counter, defaultdict
from collections.abc import Sequence
from statistics import fmean

from hiexp_verl.domains.domain import Domain
from hiexp_verl.domains.search import SEARCH
from hiexp_verl.evolve.edits import LEAST_COSINE
from hiexp_verl.guide.lookup import text_at
from hiexp_verl.hek.retrieve import Retriever
from hiexp_verl.hek.store import HEK
from hiexp_verl.ledger.rows import LedgerRow
from hiexp_verl.models.encoder import Encoder
from hiexp_verl.types import Question


class Drawn:
    """The questions in a drawn order, again and again."""

    def __init__(self, questions: Sequence[Question], seed: int) -> None:
        self.count = len(questions)
        self._order = random.Random(seed).sample(list(questions), self.count)
        self._next = 0

    def begin(self, hek: HEK, rows: Sequence[LedgerRow]) -> None:
        """Begin a round with this version in use; `rows` are those of the rounds before."""

    def take(self, count: int) -> list[Question]:
        """Return the next ones, at most all of them."""
        found = [self._order[(self._next + i) % self.count] for i in range(count)]
        self._next += count
        return found


class Thinnest(Drawn):
    """The questions of thin kinds first; none comes twice in a round."""

    def __init__(self, questions: Sequence[Question], seed: int, encoder: Encoder, domain: Domain = SEARCH) -> None:
        super().__init__(questions, seed)
        self._encoder = encoder
        self._vectors_Q_D = encoder.encode_queries([text_at("prompt", question.question, domain) for question in self._order])
        self._asked: Counter[int] = Counter()  # by place in the order
        self._behind: dict[str, int] = {}  # id of an E2, "" without one -> questions behind it
        self._left: dict[str, list[int]] = {}  # the same -> its questions that this round has not asked, the best last

    def begin(self, hek: HEK, rows: Sequence[LedgerRow]) -> None:
        """Sort the questions by kinds of this version, and by what is known of them."""
        has_e2 = any(entry.level == "e2" for entry in hek.entries)
        hits = Retriever(hek, self._encoder).retrieve(self._vectors_Q_D, ("e2",), 1, LEAST_COSINE) if has_e2 else [[]] * self.count
        rewards: dict[str, list[float]] = defaultdict(list)
        for row in rows:
            if row.arm == "none":
                rewards[row.group].append(row.reward)
        kinds: dict[str, list[int]] = defaultdict(list)
        self._behind = defaultdict(int)
        for place, found in enumerate(hits):
            kind = found[0].entry.id if found else ""
            kinds[kind].append(place)
            self._behind[kind] += self._asked[place]
        for entry in hek.entries:
            if entry.id in kinds:
                self._behind[entry.id] += len(entry.questions)

        def worth(place: int) -> tuple[int, float, int]:
            p = fmean(rewards.get(self._order[place].id, [0.5]))
            return -self._asked[place], p * (1 - p), -place

        self._left = {kind: sorted(places, key=worth) for kind, places in kinds.items()}

    def take(self, count: int) -> list[Question]:
        """Return the next ones of this round, at most those that are left."""
        found = []
        while len(found) < count and (open_kinds := [kind for kind, places in self._left.items() if places]):
            kind = min(open_kinds, key=lambda each: self._behind[each])  # of equals the one that was drawn first
            place = self._left[kind].pop()
            self._behind[kind] += 1
            self._asked[place] += 1
            found.append(self._order[place])
        return found
