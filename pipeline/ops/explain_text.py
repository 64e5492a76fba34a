"""A story as a person reads it, line by line, and as a program does. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import asdict
from typing import Any

from pipeline.ops.explain_facts import Fact
from pipeline.ops.explain_story import Moment, Story
from pipeline.ops.words import clean, dollars, lasted, when

_ABOUT = ("tenant", "type", "lane", "accepted", "deadline", "catalog", "trace")


def lines(story: Story) -> Iterator[str]:
    """Tell a story: who, how it stands, what happened, and what it waits for. Nothing in it steers a terminal."""
    return map(clean, _lines(story))


def _lines(story: Story) -> Iterator[str]:
    yield f"job {story.job}: {story.status}"
    about = story.about
    yield "  " + ", ".join(f"{name} {about[name]}" for name in _ABOUT if about.get(name))
    runs = about.get("runs", [0])
    more = f", runs {', '.join(map(str, runs))}" if runs != [0] else ""
    yield f"  cost {dollars(float(about.get('cost_usd', 0.0)))}{more}"
    yield ""
    width = max((len(_what(moment)) for moment in story.moments), default=0)
    for moment in story.moments:
        yield _line(moment, width)
        if moment.fact is not None and moment.fact.payload is not None:
            yield from _payload(moment.fact.payload)
    yield ""
    yield from (f"now: {one.text}" for one in story.waits)
    yield from (f"{one.text}; letter {one.id} at {one.where}" for one in story.letters)
    if not story.waits:
        yield f"now: nothing is waited for ({story.status})"
    yield from (f"note: {remark}" for remark in story.remarks)


def _line(moment: Moment, width: int) -> str:
    after = f"+{lasted(moment.after_ms)}" if moment.after_ms else ""
    where = f"  [{moment.where}]" if moment.where else ""
    again = "again: " if moment.again else ""
    return f"{when(moment.at_ms):<24} {after:>12}  {_what(moment):<{width}}  {again}{moment.text}{where}"


def _what(moment: Moment) -> str:
    return f"{moment.stage}: {moment.what}" if moment.stage else moment.what


def _payload(payload: Mapping[str, Any]) -> Iterator[str]:
    for name, value in payload.items():
        if value not in (None, "", [], {}):
            yield f"{'':<39}{name} = {value}"


def plain(story: Story) -> dict[str, Any]:
    """Return a story as JSON has it. Times are epoch milliseconds, 0 where they are not known."""
    return {
        "job": story.job,
        "status": story.status,
        "about": dict(story.about),
        "moments": [_moment(moment) for moment in story.moments],
        "waits": [{**asdict(one), "text": one.text} for one in story.waits],
        "letters": [asdict(one) for one in story.letters],
        "remarks": list(story.remarks),
    }


def _moment(moment: Moment) -> dict[str, Any]:
    told = {
        "at_ms": moment.at_ms,
        "after_ms": moment.after_ms,
        "what": moment.what,
        "stage": moment.stage,
        "text": moment.text,
        "again": moment.again,
    }
    return told | (record(moment.fact) if moment.fact is not None else {})


def record(fact: Fact) -> dict[str, Any]:
    """Return a fact as JSON has it."""
    told: dict[str, Any] = {
        "topic": fact.position.topic,
        "partition": fact.position.partition,
        "offset": fact.position.offset,
        "kind": fact.place.kind,
        "event": fact.event,
        "parent": fact.parent,
        "run": fact.job.run,
        "bytes": fact.size,
        "says": dict(fact.says),
    }
    if fact.place.copies:
        told |= {"tries": asdict(fact.tries), "original": str(fact.origin.position) if fact.origin else None}
        told |= {"not_before_ms": fact.not_before_ms}
    optional = {
        "dead": dict(fact.dead),
        "letter": fact.letter,
        "replay": dict(fact.replay),
        "problem": fact.problem,
        "payload": fact.payload,
    }
    return told | {name: value for name, value in optional.items() if value}
