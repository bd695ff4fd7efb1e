"""Where in the transcripts one can see what a diagnosis says: places a person, or a model, can check."""

from collections.abc import Iterator, Sequence

from hiexp_verl.distil.contrast import Contrast
from hiexp_verl.masking import pattern_of, redact
from hiexp_verl.protocol import Search, searches, text_of
from hiexp_verl.scoring import normalise
from hiexp_verl.text import sanitise
from hiexp_verl.types import Evidence, Trajectory

MAX_QUOTE_CHARS = 200
_ROOM = 160  # characters kept on each side of what is quoted, at most to the ends of its sentence

PARTS, ANSWER, ENDS = "parts here", "the answer was here", "ends here"


def evidence_of(failure: Trajectory, success: Trajectory | None, part_at: int, contrast: Contrast) -> tuple[Evidence, ...]:
    """Return where failure and success part, where each had a passage with the answer, and how the failure ends.

    `part_at` is the number of leading searches that both made alike. Answers are redacted from the quotes, since a quote
    travels with the entry; the span still points at them.
    """
    found = list(_of_one(failure, part_at, contrast.answers))
    found += _ending(failure)
    if success is not None:
        found += _of_one(success, part_at, contrast.answers)
    return tuple(_evidence(spot, contrast) for spot in found)


_Place = tuple[Trajectory, int, int, int, str]


def _of_one(trajectory: Trajectory, part_at: int, answers: Sequence[str]) -> Iterator[_Place]:
    made = searches(trajectory.messages)
    if part_at < len(made):
        yield from _query(trajectory, made[part_at])
    for search in made:
        if search.result_index is None:
            continue
        text = text_of(trajectory.messages[search.result_index])
        match = next((match for answer in answers if len(normalise(answer)) > 3 and (match := pattern_of(answer).search(text))), None)
        if match is not None:
            yield trajectory, search.result_index, match.start(), match.end(), ANSWER
            return


def _query(trajectory: Trajectory, search: Search) -> Iterator[_Place]:
    match = pattern_of(search.query).search(text_of(trajectory.messages[search.message_index]))
    if match is not None:  # a server that parses calls itself keeps the query beside the text
        yield trajectory, search.message_index, match.start(), match.end(), PARTS


def _ending(trajectory: Trajectory) -> Iterator[_Place]:
    last = len(trajectory.messages) - 1
    if last < 0 or trajectory.messages[last].get("role") != "assistant":
        return
    text = text_of(trajectory.messages[last])
    spoken = list(pattern_of(trajectory.prediction).finditer(text))
    if spoken:
        yield trajectory, last, spoken[-1].start(), spoken[-1].end(), ENDS
    elif text:
        yield trajectory, last, max(0, len(text) - MAX_QUOTE_CHARS), len(text), ENDS


def _evidence(spot: _Place, contrast: Contrast) -> Evidence:
    trajectory, message, start, end, what = spot
    text = text_of(trajectory.messages[message])
    low = max(text.rfind(mark, max(0, start - _ROOM), start) for mark in (". ", "\n")) + 1 or max(0, start - _ROOM)
    high = min((place for mark in (". ", "\n") if (place := text.find(mark, end, end + _ROOM)) >= 0), default=min(len(text), end + _ROOM))
    quote = sanitise(redact(text[low:high], contrast.telling, contrast.question), MAX_QUOTE_CHARS)
    return Evidence(trajectory.id, message, start, end, what, quote)
