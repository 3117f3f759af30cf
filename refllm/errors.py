"""The one kind of error that is the user's to mend."""

from __future__ import annotations

import re

_SPOILING = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029]")  # control characters, and what else breaks a line


class UserError(ValueError):
    """A mistake in what the user gave: its message is one line that says what is wrong and what to do.

    The command line prints the line and exits with status 2; it never shows a traceback for it. Names from the user's
    files stand in it: their line breaks and other control characters are escaped, as \\n.
    """

    def __init__(self, message: str = "") -> None:
        super().__init__(_SPOILING.sub(lambda found: found[0].encode("unicode_escape").decode(), message))


class KindError(UserError, TypeError):
    """A value of another kind than is asked for: a string for a number, a list for an array."""


class MissingTokensError(UserError, AttributeError):
    """A tokenizer lacks the special tokens that are asked for: `hasattr` says no, and who needs them gets the line."""
