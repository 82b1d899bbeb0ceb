"""The one exception for bad input. In: what, where and the mend. Out: a line a user can act on."""


class InputError(ValueError):
    """Something the user gave is wrong; the message names the value, the place and the mend.

    The command line prints it as one line and exits with status 2.
    """
