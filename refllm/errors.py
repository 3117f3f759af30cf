"""The one kind of error that is the user's to mend."""


class UserError(ValueError):
    """A mistake in what the user gave: its message is one line that says what is wrong and what to do.

    The command line prints the line and exits with status 2; it never shows a traceback for it.
    """
