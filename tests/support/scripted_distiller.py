"""A distiller that answers from a list."""

import json

from hiexp_verl.distil.replies import Usage

GOOD = {"title": "A fact about a described country", "description": "First find the country, then search for its capital.", "kind": "guide"}


class Scripted:
    """Answers from a list per attempt, and remembers what it was asked."""

    name = "scripted"
    can_retry = True

    def __init__(self, *attempts):
        self.attempts = attempts
        self.usage = Usage()
        self.asked = []

    def answer(self, conversations, attempt, progress, done=None, schema=None):
        self.asked.append([conversation[0]["content"] for conversation in conversations])
        texts = [text if isinstance(text, str) else json.dumps(text) for text in self.attempts[attempt]][: len(conversations)]
        for i, text in enumerate(texts):
            if done:
                done(i, text)
        return texts
