"""The way in: to one verb alone where that is enough, as to import all of them takes longer than most verbs do."""

from __future__ import annotations

import sys
from importlib import import_module
from typing import Annotated

import typer

from pipeline import wiring
from pipeline.cli.session import OUT

APART = {
    "run": "work",
    "control": "control",
    "pause": "control",
    "resume": "control",
    "cancel": "control",
    "deliveries": "deliveries",
    "dlq": "dlq",
    "endpoints": "endpoints",
    "explain": "explain",
    "tail": "tail",
}
"""Of verbs that are used often, and of those that a machine starts: the module that registers each."""


def main() -> None:
    """Run the command line."""
    program(sys.argv[1] if len(sys.argv) > 1 else "")()


def program(verb: str) -> typer.Typer:
    """Make the command line for this verb: with those of its module alone, or with all, `app` in app.py."""
    if verb not in APART:
        all_verbs: typer.Typer = import_module("pipeline.cli.app").app
        return all_verbs
    few = no_verbs()
    import_module(f"pipeline.cli.{APART[verb]}").register(few)
    return few


def no_verbs() -> typer.Typer:
    """Make a command line that verbs are to be added to."""
    app = typer.Typer(
        name="pipeline",
        help="LLM work as jobs on Kafka: requests go in on a topic, checked answers come out as signed webhooks.",
        no_args_is_help=True,
        pretty_exceptions_enable=False,
        rich_markup_mode="rich",
        context_settings={"help_option_names": ["-h", "--help"]},
    )
    app.callback()(_global)
    return app


def _version(wanted: bool) -> None:
    if wanted:
        OUT.print(f"pipeline {wiring.VERSION}", highlight=False)
        raise typer.Exit


def _global(
    _: Annotated[bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version.")] = False,
) -> None:
    """Take the options that stand before a verb."""
