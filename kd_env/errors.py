"""Define the exception for bad input, and the warning."""


class InputError(ValueError):
    """Something the user gave is wrong. The message is one line with the value, the place, what was expected and how to fix it.

    The command line prints it and exits with status 2.
    """


class Notice(UserWarning):
    """A warning for the user, one line like the message of an :class:`InputError`; the command line prints it on stderr and goes on."""
