"""Plans made for the question at hand: its own name in the place that the stored plan leaves open.

The entry stays free of names; the episode records for which name it was shown (`shown[...]["made_for"]`).
"""

from collections.abc import Sequence
from dataclasses import replace

from hiexp_verl.types import Hit


def made_for(name: str, hits: Sequence[Hit]) -> list[Hit]:
    """Return the hits with their plans' searches for the one name of a question (`Domain.name_of`); unchanged where it is ""."""
    return [_made_for(name, hit) for hit in hits] if name else list(hits)


def _made_for(name: str, hit: Hit) -> Hit:
    description = hit.entry.description
    for plan in hit.entry.plans:
        description = description.replace(plan.sentence, plan.made_for(name).sentence)
    if description == hit.entry.description:
        return hit
    return replace(hit, entry=replace(hit.entry, description=description), made_for=name, stored=hit.content)
