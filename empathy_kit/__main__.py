"""The command ``empathy-kit``, which is also ``python -m empathy_kit``."""

from __future__ import annotations

import sys

from empathy_kit.errors import is_ctrl_c


def main() -> None:
    """Run the command line; Ctrl-C ends it in one line while its modules are loaded, too."""
    try:
        from empathy_kit.cli import main as command_line
    except (KeyboardInterrupt, RuntimeError) as error:
        if not is_ctrl_c(error):
            raise
        sys.exit("Aborted!")
    command_line()


if __name__ == "__main__":
    main()
