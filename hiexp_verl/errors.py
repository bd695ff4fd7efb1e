"""The one error a user is meant to read: what is wrong, what was found, what to do."""


class HiExpError(Exception):
    """A fault in what the user gave us. Its text is one line and says what to do."""


def first_line(error: BaseException) -> str:
    """Return the first line of what an error says, its name where it says nothing: for a message of one line."""
    lines = str(error).strip().splitlines()
    return lines[0][:200] if lines else type(error).__name__
