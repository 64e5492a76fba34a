"""`pipeline dlq show` and `export`: one dead letter in full, and many of them as JSON lines."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Sequence
from contextlib import aclosing, contextmanager
from pathlib import Path
from typing import Annotated, TextIO

import typer
from rich.markup import escape

from pipeline.cli.console import print_json, when
from pipeline.cli.dlq_desk import opened, plain
from pipeline.cli.dlq_options import Asked, asking
from pipeline.cli.session import ERR, MISUSED, OUT, configure, run, say
from pipeline.core.errors import ConfigurationError
from pipeline.core.letter_filter import LetterFilter
from pipeline.core.payloads import Audit, Letter
from pipeline.ops.letter_show import Story, exported, hex_dump, shown_headers, shown_payload, story
from pipeline.ops.letters import Letters
from pipeline.settings import Configured

ShowPayload = Annotated[bool, typer.Option("--show-payload", help="Show senders' data, too, which may be personal.")]


def register(dlq_app: typer.Typer) -> None:
    """Add the verbs."""
    dlq_app.command("show", epilog="Example: pipeline dlq show p.infer.dlq/3/42 --show-payload")(show)
    dlq_app.command("export", epilog="Example: pipeline dlq export --stage infer --since 1d --out dead.jsonl")(export)


def show(
    letter: Annotated[str, typer.Argument(help="A letter's id, or its place: topic/partition/offset.")],
    show_payload: ShowPayload = False,
    raw: Annotated[bool, typer.Option("--raw", help="Show the value's bytes instead; with --show-payload.")] = False,
    out: Annotated[Path | None, typer.Option("--out", help="Write the value's bytes to a file; as --raw.")] = None,
    topics: Annotated[list[str] | None, typer.Option("--topic", help="Look into this topic as well.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Show a dead letter: why it died, its headers, its event, its former lives, and what was done about it.

    Senders' data is told by its length, unless --show-payload is given. Ends with 2 where there is no such letter.
    """
    configured = configure(level="WARNING")
    if (raw or out is not None) and not show_payload:
        ERR.print("pipeline: a value's bytes are its sender's data: add --show-payload to see them")
        raise typer.Exit(MISUSED)
    asked = Asked(LetterFilter(), None, topics or ())
    told, dead_open = run(_story(configured, asked, letter))
    if raw or out is not None:
        _print_raw(told, out)
    elif as_json:
        print_json(_plain_story(told, dead_open, masking=not show_payload))
    else:
        _print_story(told, dead_open, masking=not show_payload)


async def _story(configured: Configured, asked: Asked, letter: str) -> tuple[Story, bool]:
    async with opened(configured, asked) as letters:
        found = await letters.find(letter)
        return await story(letters, found), letters.ports.topics[found.record.topic].open_topic


@asking
def export(
    asked: Asked,
    show_payload: ShowPayload = False,
    out: Annotated[Path | None, typer.Option("--out", help="Write to this file; standard output unless given.")] = None,
) -> None:
    """Write dead letters as JSON lines: place, head, and with --show-payload key, value and headers in base64."""
    configured = configure(level="WARNING")
    count = run(_export(configured, asked, out, masking=not show_payload))
    if out is not None:
        say(f"{count} dead letters written to {out}")


async def _export(configured: Configured, asked: Asked, out: Path | None, *, masking: bool) -> int:
    async with opened(configured, asked) as letters:
        with _target(out) as target:
            return await _write(letters, asked, target, masking=masking)


async def _write(letters: Letters, asked: Asked, target: TextIO, *, masking: bool) -> int:
    count, ports = 0, letters.ports
    async with aclosing(letters.select(asked.filter)) as batches:
        async for batch in batches:
            for one in batch[: None if asked.limit is None else asked.limit - count]:
                dead = ports.topics[one.record.topic]
                told = exported(one, open_topic=dead.open_topic, masking=masking)
                version = await ports.versions.of(one.record.value)
                json.dump({**plain(one.head, one.state, version), **told}, target, ensure_ascii=False)
                target.write("\n")
                count += 1
            if count == asked.limit:
                break
    return count


@contextmanager
def _target(out: Path | None) -> Iterator[TextIO]:
    if out is None:
        yield sys.stdout
        return
    try:
        with out.open("w", encoding="utf-8") as target:
            yield target
    except OSError as error:
        raise ConfigurationError(f"cannot write {out}: {error.strerror}") from None


# ------------------------------------------------------------------ a story


def _print_raw(told: Story, out: Path | None) -> None:
    value = told.found.record.value or b""
    if out is None:
        for one in hex_dump(value):
            print(one)
        return
    try:
        out.write_bytes(value)
    except OSError as error:
        ERR.print(f"pipeline: cannot write {out}: {error.strerror}", highlight=False, markup=False, soft_wrap=True)
        raise typer.Exit(MISUSED) from None
    say(f"{len(value)} bytes written to {out}")


def _plain_story(told: Story, open_topic: bool, *, masking: bool) -> dict[str, object]:
    found = told.found
    return {
        **plain(found.head, found.state, told.version),
        "masked": masking,
        "headers": [list(one) for one in shown_headers(found.record, open_topic=open_topic, masking=masking)],
        "payload": shown_payload(told.payload, masking=masking),
        "unreadable": told.unreadable,
        "done": [None if one is None else one.model_dump(mode="json") for one in told.entries],
        "audit": [one.model_dump(mode="json") for one in told.audits],
        "former": [
            {"letter": life.letter, "state": life.state.state, "replay": life.state.replay}
            | ({"reason": life.head.code, "failed_at_ms": life.head.failed_at_ms} if life.head is not None else {})
            for life in told.former
        ],
    }


def _print_story(told: Story, open_topic: bool, *, masking: bool) -> None:
    head, state = told.found.head, told.found.state
    _part(f"dead letter {head.id}, at {head.position}")
    _fields(
        ("state", _whose(state.state, state.assignee)),
        ("stage", f"{head.stage} (group {head.group})" if head.group else head.stage),
        ("reason", f"{head.code}: {head.reason}" if head.reason else head.code),
        ("exception", head.exception),
        ("fingerprint", head.fingerprint),
        ("failed at", f"{when(head.failed_at_ms)} UTC, first at {when(head.first_failure_ms)}"),
        ("tries", f"{head.tries.attempts} attempts, {head.tries.deferrals} deferrals, {head.tries.timeouts} timeouts"),
        ("first stood at", head.original or "not told"),
        ("job", f"{head.job}, run {head.run}" if head.job else "not known"),
        ("type, tenant", f"{head.type or '-'}, {head.tenant or '-'}"),
        ("trace", head.trace_id),
        ("deadline", when(head.deadline_ms or 0)),
        ("schema", told.version),
        ("written by", f"version {head.version}" if head.version else f"others ({head.family})"),
    )
    _part("headers")
    _fields(*shown_headers(told.found.record, open_topic=open_topic, masking=masking))
    _part("event")
    _text(told.unreadable or json.dumps(shown_payload(told.payload, masking=masking), indent=2, ensure_ascii=False))
    if told.former:
        _part("former lives, the latest first")
        for life in told.former:
            why = f"{life.head.code} at {when(life.head.failed_at_ms)}" if life.head else "its record is gone"
            _text(f"{life.letter}  {life.state.state}  {why}")
    if told.entries or told.audits:
        _part("what was done")
        _happened(told.entries, told.audits)


def _happened(entries: Sequence[Letter | None], audits: Sequence[Audit]) -> None:
    for one in entries:
        if one is None:
            _text("reopened")
        else:
            what = _whose(one.state, one.assignee)
            _text(f"{when(one.at_ms)}  {what}  by {one.operator or '-'}: {one.reason or '-'}")
    for told in audits:
        of_many = told.details.get("letters", "1")
        _text(f"{when(told.at_ms)}  {told.action}  by {told.operator or '-'}: {told.reason or '-'} ({of_many} letters)")


def _whose(state: str, assignee: str) -> str:
    if not assignee:
        return state
    return f"{state} to {assignee}" if state == "assigned" else f"{state}, assigned to {assignee}"


def _part(title: str) -> None:
    OUT.print(f"[bold]{escape(title)}[/]", highlight=False, soft_wrap=True)


def _fields(*fields: tuple[str, str | None]) -> None:
    width = max((len(name) for name, _ in fields), default=0)
    for name, value in fields:
        _text(f"  {name:<{width}}  {'null' if value is None else value}")


def _text(text: str) -> None:
    # A header's name is anybody's: what steers a terminal is not printed.
    kept = "".join(one if one.isprintable() or one == "\n" else " " for one in text)
    OUT.print(kept, highlight=False, soft_wrap=True, markup=False)
