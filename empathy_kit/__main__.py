"""``python -m empathy_kit``."""

from empathy_kit.cli import main

main()
