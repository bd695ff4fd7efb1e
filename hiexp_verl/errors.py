"""The one error a user is meant to read: what is wrong, what was found, what to do."""


class HiExpError(Exception):
    """A fault in what the user gave us. Its text is one line and says what to do."""
