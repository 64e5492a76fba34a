"""Who gives a command, and why: the options of every verb whose doings are written down."""

from __future__ import annotations

import getpass
from typing import Annotated

import typer

Reason = Annotated[str, typer.Option("--reason", help="Why, for others who look.")]
Operator = Annotated[str | None, typer.Option("--operator", help="Who says so; your login name unless given.")]


def operator_of(given: str | None) -> str:
    """Return who gives the command: the login name where it is not said; empty where the machine knows none."""
    if given is not None:
        return given
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return ""
