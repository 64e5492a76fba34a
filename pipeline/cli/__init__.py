"""The command line: verbs for people. Its modules join `wiring` and `devkit`; nothing imports them."""

from pipeline.cli.entry import main

__all__ = ["main"]
