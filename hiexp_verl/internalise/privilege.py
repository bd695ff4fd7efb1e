"""What the teacher reads and the student does not: another attempt's way, or experience.

The privilege stands in the system message, inside the chat template: text of a model is words there, no turn and no call.
"""

import copy
from collections.abc import Sequence

from hiexp_verl.protocol import searches
from hiexp_verl.text import sanitise
from hiexp_verl.types import Message, Trajectory

FOUND_CHARS = 240  # of what a search of the reference brought
_OPEN = "Another attempt at this question was right. This is what it did:"
_CLOSE = "Go the same way, in the format asked for."


def with_reference(messages: Sequence[Message], reference: Trajectory) -> list[Message]:
    """Return a deep copy of the messages with a right attempt in the system message, which is made if there is none."""
    lines = [_OPEN]
    for search in searches(reference.messages):
        lines.append(f"It searched for: {sanitise(search.query, FOUND_CHARS)}")
        if search.documents:
            lines.append(f"It found: {sanitise(search.documents, FOUND_CHARS)}")
    lines += [f"It answered: {sanitise(reference.prediction, FOUND_CHARS)}", _CLOSE]
    shown = copy.deepcopy(list(messages))
    if not shown or shown[0].get("role") != "system":
        shown.insert(0, {"role": "system", "content": ""})
    content, text = shown[0].get("content") or "", "\n".join(lines)
    if isinstance(content, list):  # OpenAI style parts
        content.append({"type": "text", "text": text})
    else:
        shown[0]["content"] = f"{content}\n\n{text}" if content else text
    return shown
