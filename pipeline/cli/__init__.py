"""The command line: verbs for people. Its modules join `wiring` and `devkit`; nothing imports them."""

from pipeline.cli.app import main

__all__ = ["main"]
