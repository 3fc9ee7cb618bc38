"""What a user can put right: said in one line, with the file's name, never as a traceback."""


class UserError(Exception):
    """A message for the person at the keyboard: what must hold, what was found, in which file, what to do."""

    exit_code = 2


class LockHeld(UserError):
    """Another trainer works in this state directory; the exit code tells a scheduler to try again later."""

    exit_code = 75


class Faulty(UserError):
    """Artifacts are not what they should be: the faults have been listed."""

    exit_code = 1
