"""A distiller that answers from a list."""

import json

from hiexp_verl.distil.replies import ModelReplies, StoredReplies, Usage
from hiexp_verl.models.chat import Reply

GOOD = {"title": "A fact about a described country", "description": "First find the country, then search for its capital.", "kind": "guide"}


def stored(model, path, name="m", resume=True):
    """Return replies of a model that are kept in a file."""
    return ModelReplies(model, "stored", StoredReplies(path, name, resume))


class Scripted:
    """Answers from a list per attempt, as a source of replies and as a model, and remembers what it was asked."""

    name = "scripted"
    can_retry = True

    def __init__(self, *attempts):
        self.attempts = attempts
        self.usage = Usage()
        self.asked = []

    def reply(self, conversations, attempt, progress, schema=None):
        self.asked.append([conversation[0]["content"] for conversation in conversations])
        return [text if isinstance(text, str) else json.dumps(text) for text in self.attempts[attempt]][: len(conversations)]

    def complete(self, conversations, *, seed, on_reply, **_):
        texts = self.reply(conversations, seed, "")
        for i, text in enumerate(texts):
            on_reply(i, Reply(text, "stop", completion_tokens=1))
        return texts
