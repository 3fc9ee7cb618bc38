"""Mistakes that a user can put right: each is one line with the name of the file, never a traceback."""

import difflib
import re
from collections.abc import Iterable, Sequence

_UNPRINTABLE = re.compile("[\x00-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")
"""Control characters, line ends, changes of the text's direction, and bytes of a file's name that are not UTF-8."""


class UserError(Exception):
    """A message for the user: in which file, what must hold, what was found, what to do."""

    exit_code = 2


class LockHeld(UserError):
    """Another trainer holds the lock of this state directory. The exit code tells a scheduler to try again later."""

    exit_code = 75


class Faulty(UserError):
    """Some artifacts have faults, which were listed before."""

    exit_code = 1


def is_plain(text: str) -> bool:
    """Whether a text is one line without characters that control a terminal."""
    return _UNPRINTABLE.search(text) is None


def printable(text: str) -> str:
    """The text on one line, for any terminal and any file in UTF-8: other characters become escapes."""
    return _UNPRINTABLE.sub(lambda match: ascii(match[0])[1:-1], text)


def first(names: Sequence[object], count: int = 3) -> str:
    """The first names of a list for a message, and the number of the rest."""
    more = f" and {len(names) - count} more" if len(names) > count else ""
    return ", ".join(str(name) for name in names[:count]) + more


def did_you_mean(name: object, choices: Iterable[object]) -> str:
    """The end of a message about an unknown name: the most similar choice; empty if none is similar."""
    similar = difflib.get_close_matches(str(name), map(str, choices), n=1)
    return f", did you mean {similar[0]}?" if similar else ""
