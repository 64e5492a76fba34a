"""One dead letter, as a person or a program is shown it: head, headers, the decoded event, and its whole history.

Senders' data is masked unless it is asked for: the key, the value's texts, and headers that are not ours.
"""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass

from pydantic import JsonValue

from pipeline.core.errors import Defer, Reject
from pipeline.core.letter import LetterHead
from pipeline.core.letter_mask import is_ours, masked, masked_bytes, shown_header
from pipeline.core.letter_state import LetterState
from pipeline.core.payloads import Audit, Letter
from pipeline.core.record import Position, Record
from pipeline.ops.letter_states import read_entries, state_of
from pipeline.ops.letters import Found, Letters
from pipeline.ops.log_scan import scan, take_snapshot
from pipeline.ops.publish import AUDIT_NOUN
from pipeline.telemetry import logs

MOST_LIVES = 20
"""How many former lives are followed: more are a loop in somebody's headers, or no help."""


@dataclass(frozen=True, slots=True)
class Life:
    """What a letter was before: its id, its head where its record is still there, and what was done about it last."""

    letter: str
    head: LetterHead | None
    state: LetterState


@dataclass(frozen=True, slots=True)
class Story:
    """All that is known of a letter. `payload` is None where it cannot be decoded, and `unreadable` says why."""

    found: Found
    version: str
    payload: JsonValue
    unreadable: str
    entries: Sequence[Letter | None]
    audits: Sequence[Audit]
    former: Sequence[Life]


async def story(letters: Letters, found: Found) -> Story:
    """Find out all about a letter."""
    ports = letters.ports
    payload, unreadable = await _payload(letters, found)
    head = await ports.decoder.told(found.record, found.head) if found.head.opaque else found.head
    async with ports.opens() as reader:
        kept = await read_entries(reader, ports.shelf, ports.codec, ports.states, [head.id])
    return Story(
        Found(found.record, head, found.state),
        await ports.versions.of(found.record.value),
        payload,
        unreadable,
        kept[head.id],
        await _audits(letters, head.id),
        await _former(letters, head),
    )


async def _payload(letters: Letters, found: Found) -> tuple[JsonValue, str]:
    try:
        event = await letters.ports.decoder.event(found.record, found.head)
    except (Reject, Defer) as unfit:
        return None, unfit.reason
    payload: JsonValue = event.payload.model_dump(mode="json")
    return payload, ""


async def _audits(letters: Letters, letter: str) -> Sequence[Audit]:
    """Read what the audit topic tells of a letter."""
    ports = letters.ports
    found = []
    async with ports.opens() as reader:
        bounds = await take_snapshot(reader, ports.shelf, [ports.audit])
        async with aclosing(scan(reader, bounds.spans)) as batches:
            async for records in batches:
                found += [one for one in [await _audit(letters, record) for record in records] if one]
    return [one for one in found if one.subject == letter or letter in one.details.get("ids", "").split()]


async def _audit(letters: Letters, record: Record) -> Audit | None:
    try:
        return await letters.ports.codec.decode(AUDIT_NOUN, Audit, record.value or b"")
    except Reject as unfit:
        logs.get().warning(f"{record.position} is ignored: {unfit.reason}", action="audit.ignored")
        return None


async def _former(letters: Letters, head: LetterHead) -> Sequence[Life]:
    """Follow a letter to the one whose replay it was, and on, the latest first."""
    lives: list[Life] = []
    seen, name = {head.id}, head.former
    while name and name not in seen and len(lives) < MOST_LIVES:
        seen.add(name)
        life = await _life(letters, name)
        lives.append(life)
        name = life.head.former if life.head is not None else ""
    return lives


async def _life(letters: Letters, name: str) -> Life:
    ports = letters.ports
    async with ports.opens() as reader:
        entries = (await read_entries(reader, ports.shelf, ports.codec, ports.states, [name]))[name]
    known = next((one for one in reversed(entries) if one is not None and one.topic), None)
    found = None
    if known is not None and known.topic in ports.topics:
        found = await letters.at(Position(known.topic, known.partition, known.offset), name)
    state = state_of(entries[-1]) if entries else letters.states.of_id(name)
    return Life(name, found.head if found is not None else None, state)


# ------------------------------------------------------------------ what is shown


def shown_headers(record: Record, *, open_topic: bool, masking: bool) -> list[tuple[str, str | None]]:
    """Spell all headers in their order; while masking, those that are not ours by their length."""
    return [
        (name, masked_bytes(value) if _hidden(name, open_topic=open_topic, masking=masking) else shown_header(value))
        for name, value in record.headers
    ]


def _hidden(name: str, *, open_topic: bool, masking: bool) -> bool:
    return masking and not is_ours(name, open_topic=open_topic)


def shown_payload(payload: JsonValue, *, masking: bool) -> JsonValue:
    """Return a decoded payload as it may be shown."""
    return masked(payload) if masking else payload


def exported(found: Found, *, open_topic: bool, masking: bool) -> Mapping[str, object]:
    """Spell a letter's record for a file: bytes in base64, or, while masking, how many they are."""
    record = found.record
    return {
        "letter": found.head.id,
        "topic": record.topic,
        "partition": record.partition,
        "offset": record.offset,
        "timestamp_ms": record.timestamp_ms,
        "masked": masking,
        "key": masked_bytes(record.key) if masking else _base64(record.key),
        "value": masked_bytes(record.value) if masking else _base64(record.value),
        "headers": [
            [name, masked_bytes(value) if _hidden(name, open_topic=open_topic, masking=masking) else _base64(value)]
            for name, value in record.headers
        ],
    }


def _base64(value: bytes | None) -> str | None:
    return None if value is None else base64.b64encode(value).decode("ascii")


def hex_dump(value: bytes, width: int = 16) -> list[str]:
    """Spell bytes as lines of offset, hexadecimal and text."""
    lines = []
    for start in range(0, len(value), width):
        part = value[start : start + width]
        text = "".join(chr(byte) if 0x20 <= byte < 0x7F else "." for byte in part)
        lines.append(f"{start:08x}  {part.hex(' '):<{3 * width - 1}}  {text}")
    return lines
