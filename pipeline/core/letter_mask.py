"""What a person may see of a dead letter without seeing a sender's data: everything else is told by its length."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from pydantic import JsonValue

from pipeline.core import headers as h

SAFE_FIELDS = frozenset(
    {"type", "lane", "model", "tenant", "kind", "outcome", "code", "stage", "state", "finish_reason", "catalog"}
)
"""The fields of payloads whose texts are names that we, or the catalog, have given."""

_NOT_OURS = frozenset({h.BAGGAGE, h.TRACESTATE, h.CONVERSATION})
"""Headers that we carry along, and whose values senders choose."""
_BELIEVED = (h.DEAD, h.REPLAY, h.X_ORIGINAL)


def masked_text(text: str) -> str:
    """Tell of a text how long it is."""
    return f"<{len(text)} characters>"


def masked_bytes(value: bytes | None) -> str | None:
    """Tell of bytes how many they are."""
    return None if value is None else f"<{len(value)} bytes>"


def masked(value: JsonValue, field: str = "") -> JsonValue:
    """Mask all texts of a decoded payload, but for those of `SAFE_FIELDS`; numbers, and the names of fields, stay."""
    if isinstance(value, str):
        return value if field in SAFE_FIELDS else masked_text(value)
    if isinstance(value, Mapping):
        return {name: masked(one, name) for name, one in value.items()}
    if isinstance(value, Sequence):
        return [masked(one, field) for one in value]
    return value


def is_ours(name: str, *, open_topic: bool) -> bool:
    """Whether a header's value is the pipeline's own. On an open topic only what the dead letter adds is."""
    if name in h.COPY_SCOPED or name.startswith(_BELIEVED):
        return True
    return not open_topic and name in h.OURS and name not in _NOT_OURS


def shown_header(value: bytes | None) -> str | None:
    """Spell a header's value for people: text where it is some, else hexadecimal."""
    if value is None:
        return None
    try:
        text = value.decode("utf-8")
    except UnicodeDecodeError:
        text = "\x00"
    return text if text.isprintable() else f"0x{value.hex()}"
