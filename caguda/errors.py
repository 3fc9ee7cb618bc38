"""What a user can put right: said in one line, with the file's name, never as a traceback."""

import unicodedata
from collections.abc import Sequence


class UserError(Exception):
    """A message for the person at the keyboard: what must hold, what was found, in which file, what to do."""

    exit_code = 2


class LockHeld(UserError):
    """Another trainer works in this state directory; the exit code tells a scheduler to try again later."""

    exit_code = 75


class Faulty(UserError):
    """Artifacts are not what they should be: the faults have been listed."""

    exit_code = 1


def first(names: Sequence[object], count: int = 3) -> str:
    """The first few of some names for a message, and how many more there are."""
    more = f" and {len(names) - count} more" if len(names) > count else ""
    return ", ".join(str(name) for name in names[:count]) + more


_UNPRINTABLE = ("Cc", "Cs", "Zl", "Zp")
"""Unicode's categories of control characters, of bytes that are no UTF-8, and of line and paragraph breaks."""


def is_plain(text: str) -> bool:
    """Whether a text is one line without anything that a terminal obeys."""
    return not any(unicodedata.category(letter) in _UNPRINTABLE for letter in text)


def one_line(text: str) -> str:
    """A text as one line that a terminal shows and does not obey; what is not plain in it is written as in Python."""
    return text if is_plain(text) else "".join(c if is_plain(c) else ascii(c)[1:-1] for c in text)
