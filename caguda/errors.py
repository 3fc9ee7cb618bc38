"""What a user can put right: said in one line, with the file's name, never as a traceback."""

import re
from collections.abc import Sequence

_UNPRINTABLE = re.compile("[\x00-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")
"""Control characters, ends of lines, changes of direction, and bytes of a file's name that are not UTF-8."""


class UserError(Exception):
    """A message for the person at the keyboard: what must hold, what was found, in which file, what to do."""

    exit_code = 2


class LockHeld(UserError):
    """Another trainer works in this state directory; the exit code tells a scheduler to try again later."""

    exit_code = 75


class Faulty(UserError):
    """Artifacts are not what they should be: the faults have been listed."""

    exit_code = 1


def is_plain(text: str) -> bool:
    """Whether a text is one line without anything that a terminal obeys."""
    return _UNPRINTABLE.search(text) is None


def printable(text: str) -> str:
    """Text on one line that any terminal and file in UTF-8 takes; each character that it would not is an escape."""
    return _UNPRINTABLE.sub(lambda found: ascii(found[0])[1:-1], text)


def first(names: Sequence[object], count: int = 3) -> str:
    """The first few of some names for a message, and how many more there are."""
    more = f" and {len(names) - count} more" if len(names) > count else ""
    return ", ".join(str(name) for name in names[:count]) + more
