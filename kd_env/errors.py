"""Define the exception for bad input."""


class InputError(ValueError):
    """Something the user gave is wrong. The message is one line with the value, the place, what was expected and how to fix it.

    The command line prints it and exits with status 2.
    """
