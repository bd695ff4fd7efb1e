"""The error for users: what is wrong, what was found, what to do."""


class HiExpError(Exception):
    """A fault in the user's input. Its text is one line with what to do."""


def first_line(error: BaseException) -> str:
    """Return the first line of an error's text, its type where it has none."""
    lines = str(error).strip().splitlines()
    return lines[0][:200] if lines else type(error).__name__
