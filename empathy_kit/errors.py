"""The one exception that means: the user can fix this."""

from __future__ import annotations


class KitError(Exception):
    """A fault that the user can fix, in one line: what is wrong, what was expected, what exists.

    The command line prints it without a traceback and ends with exit code 2. Any other exception is a bug of the kit
    and keeps its traceback. A message never holds post text.
    """
