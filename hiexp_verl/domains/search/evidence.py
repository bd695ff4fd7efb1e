"""The places in the transcripts that show a diagnosis, for a person or a model to check."""

from collections.abc import Iterator, Sequence

from hiexp_verl.domains.diagnosis import Contrast
from hiexp_verl.masking import pattern_of, redact
from hiexp_verl.protocol import searches, text_of
from hiexp_verl.scoring import normalise
from hiexp_verl.text import sanitise
from hiexp_verl.types import Evidence, Trajectory

MAX_QUOTE_CHARS = 200
_ROOM = 160  # characters kept on each side of what is quoted, at most to the ends of its sentence

PARTS, ANSWER, ENDS = "parts here", "the answer was here", "ends here"


_Place = tuple[Trajectory, int, tuple[int, int], str]  # trajectory, message, span, what


def evidence_of(failure: Trajectory, success: Trajectory | None, part_at: int, contrast: Contrast) -> tuple[Evidence, ...]:
    """Return where failure and success part, where each had a passage with the answer, and how the failure ends.

    `part_at` is the number of leading searches that both made alike. Answers are redacted from the quotes, since a quote
    travels with the entry; the span still points at them.
    """
    places = [*_places(failure, part_at, contrast.answers), *_ending(failure)]
    if success is not None:
        places += _places(success, part_at, contrast.answers)
    return tuple(_evidence(place, contrast) for place in places)


def _places(trajectory: Trajectory, part_at: int, answers: Sequence[str]) -> Iterator[_Place]:
    made = searches(trajectory.messages)
    if part_at < len(made):
        index = made[part_at].message_index
        match = pattern_of(made[part_at].query).search(text_of(trajectory.messages[index]))
        if match is not None:  # a server that parses calls itself keeps the query beside the text
            yield trajectory, index, match.span(), PARTS
    patterns = [pattern_of(answer) for answer in answers if len(normalise(answer)) > 3]
    for index in (search.result_index for search in made if search.result_index is not None):
        text = text_of(trajectory.messages[index])
        match = next((match for pattern in patterns if (match := pattern.search(text))), None)
        if match is not None:
            yield trajectory, index, match.span(), ANSWER
            return


def _ending(trajectory: Trajectory) -> Iterator[_Place]:
    last = len(trajectory.messages) - 1
    if last < 0 or trajectory.messages[last].get("role") != "assistant":
        return
    text = text_of(trajectory.messages[last])
    predictions = list(pattern_of(trajectory.prediction).finditer(text))
    if predictions:
        yield trajectory, last, predictions[-1].span(), ENDS
    elif text:
        yield trajectory, last, (max(0, len(text) - MAX_QUOTE_CHARS), len(text)), ENDS


def _evidence(place: _Place, contrast: Contrast) -> Evidence:
    trajectory, message, (start, end), what = place
    text = text_of(trajectory.messages[message])
    low = max(text.rfind(mark, max(0, start - _ROOM), start) for mark in (". ", "\n")) + 1 or max(0, start - _ROOM)
    high = min((at for mark in (". ", "\n") if (at := text.find(mark, end, end + _ROOM)) >= 0), default=min(len(text), end + _ROOM))
    quote = sanitise(redact(text[low:high], contrast.all_answers, contrast.question), MAX_QUOTE_CHARS)
    return Evidence(trajectory.id, message, start, end, what, quote)
