"""`pipeline dlq`: dead letters, listed, shown, exported, worked on and followed. Each verb is in a file of its own."""

from __future__ import annotations

import typer

from pipeline.cli import dlq_list, dlq_mark, dlq_replay, dlq_show, dlq_watch

dlq_app = typer.Typer(help="Dead letters: records that need a person.", no_args_is_help=True)


def register(app: typer.Typer) -> None:
    """Add the verbs to the command line."""
    app.add_typer(dlq_app, name="dlq")
    for one in (dlq_list, dlq_show, dlq_replay, dlq_mark, dlq_watch):
        one.register(dlq_app)
