"""Which dead letters a verb is about: the options that all verbs of `pipeline dlq` share, declared in one place."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, get_type_hints

import typer

from pipeline import wiring
from pipeline.cli.session import complaints
from pipeline.core.letter_filter import LetterFilter, moment
from pipeline.core.letter_state import STATES


@dataclass(frozen=True, slots=True)
class Asked:
    """What a person asked for. `limit` is None where no number was given; `topics` are dead letters of others."""

    filter: LetterFilter
    limit: int | None = None
    topics: Sequence[str] = ()


def stage_names(incomplete: str) -> list[str]:
    """Complete the name of a stage."""
    return [name for name in wiring.STAGES if name.startswith(incomplete)]


def state_names(incomplete: str) -> list[str]:
    """Complete the name of a state."""
    return [name for name in STATES if name.startswith(incomplete)]


Why = Annotated[str, typer.Option("--why", help="Why, for others who look. (--reason is a filter.)")]
Yes = Annotated[bool, typer.Option("--yes", help="Do not ask.")]

_Names = list[str] | None
_OPTIONS: dict[str, tuple[Any, str, typer.models.OptionInfo]] = {
    "stages": (_Names, "--stage", typer.Option("--stage", help="The stage that gave up.", autocompletion=stage_names)),
    "reasons": (_Names, "--reason", typer.Option("--reason", help="The reason class, or a glob of it: 'model_*'.")),
    "fingerprints": (
        _Names,
        "--fingerprint",
        typer.Option("--fingerprint", help="The kind of failure; its first digits do."),
    ),
    "types": (_Names, "--type", typer.Option("--type", help="The event type.")),
    "tenants": (_Names, "--tenant", typer.Option("--tenant", help="The tenant.")),
    "jobs": (_Names, "--job", typer.Option("--job", help="The job's id.")),
    "traces": (_Names, "--trace", typer.Option("--trace", help="The trace's id.")),
    "states": (
        _Names,
        "--state",
        typer.Option("--state", help=f"One of {', '.join(STATES)}.", autocompletion=state_names),
    ),
    "letters": (_Names, "--letter", typer.Option("--letter", help="The letter's id.")),
    "since": (
        str | None,
        "--since",
        typer.Option("--since", help="Failed at that time or later: 2026-03-01T09:30, or 2h ago."),
    ),
    "until": (str | None, "--until", typer.Option("--until", help="Failed before that time.")),
    "limit": (int | None, "--limit", typer.Option("--limit", min=0, help="No more letters than this.")),
    "topics": (_Names, "--topic", typer.Option("--topic", help="Look into this dead-letter topic as well.")),
}
"""Of each option the name in a verb's arguments, its type, its flag, what it is. Names in a list mean any of them."""


def asking(verb: Callable[..., None]) -> Callable[..., None]:
    """Give a verb the options of all verbs; its first parameter is then what was `Asked`, and the others are its own.

    Typer reads a function's signature, and so does this: the verb is shown to it with the options in their place.
    """
    hints = get_type_hints(verb, include_extras=True)
    first, *own = inspect.signature(verb).parameters.values()
    own = [one.replace(annotation=hints[one.name]) for one in own]
    shared = [
        inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=None, annotation=Annotated[kind, option])
        for name, (kind, _, option) in _OPTIONS.items()
    ]

    @functools.wraps(verb)
    def called(*_: object, **given: Any) -> None:
        with complaints():
            asked = _asked({name: given.pop(name) for name in _OPTIONS})
        verb(**{first.name: asked}, **given)

    arguments = [one.replace(kind=inspect.Parameter.KEYWORD_ONLY) for one in own]
    called.__signature__ = inspect.Signature([*arguments, *shared])  # type: ignore[attr-defined]  # what inspect reads
    called.__annotations__ = {one.name: one.annotation for one in (*arguments, *shared)}
    return called


def _asked(given: dict[str, Any]) -> Asked:
    now = wiring.CLOCK()
    limit, topics = given.pop("limit"), given.pop("topics") or ()
    since, until = given.pop("since"), given.pop("until")
    wanted = LetterFilter(
        **{name: tuple(names or ()) for name, names in given.items()},
        since_ms=None if since is None else moment(since, now, "--since"),
        until_ms=None if until is None else moment(until, now, "--until"),
    )
    return Asked(wanted.checked(), limit, topics)


def scope_of(asked: Asked, ids: Sequence[str] = ()) -> str:
    """Say in words which letters are meant, as the options have it."""
    if ids:
        return "by name"
    wanted = asked.filter
    told = []
    for name, (_, flag, _) in _OPTIONS.items():
        value = getattr(wanted, name, None) if name not in {"since", "until"} else getattr(wanted, f"{name}_ms")
        names = [value] if isinstance(value, int) else value or ()
        told += [f"{flag} {one}" for one in names]
    if asked.limit is not None:
        told.append(f"--limit {asked.limit}")
    return " ".join(told)
