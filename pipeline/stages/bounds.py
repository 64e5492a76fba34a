"""How much of what a caller adds to a request is carried along. Each check raises Fail with a reason for the caller."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping

from pipeline.core.errors import Fail

MAX_ENTRIES = 32
"""The most entries of `filters` or `metadata`."""
MAX_NAME = 64
"""The longest name of an entry, in characters."""
MAX_TEXT = 1_000
"""The longest value of an entry, in characters."""
MAX_SOURCES = 8
"""The most sources of `as_fresh_as`."""
MAX_LABEL = 200
"""The longest tenant or conversation, in characters: both travel in headers."""

# A dot or bracket would be read as a path into the index's payload.
_FILTER_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")


def check_filters(filters: Mapping[str, str], allowed: Collection[str] | None = None) -> None:
    """Check what narrows the retrieval: names of plain fields, of the `allowed` ones if told, and bounded values."""
    _check_entries("filters", filters)
    for name in filters:
        if not _FILTER_NAME.fullmatch(name):
            raise Fail(
                f"filters: {short(name)} is no name of a field; use letters, digits and '_'", code="invalid_filters"
            )
        if allowed is not None and name not in allowed:
            known = ", ".join(sorted(allowed)) or "nothing"
            reason = f"filters: this type cannot be filtered by {short(name)}, but by: {known}"
            raise Fail(reason, code="invalid_filters")


def check_freshness(wanted: Mapping[str, int]) -> None:
    """Check how new the index has to be: a few sources by their names, and versions that a record can carry."""
    if len(wanted) > MAX_SOURCES:
        reason = f"as_fresh_as has {len(wanted)} entries; {MAX_SOURCES} are allowed"
        raise Fail(reason, code="invalid_as_fresh_as")
    for source, version in wanted.items():
        if not 0 < len(source) <= MAX_TEXT:
            reason = f"as_fresh_as: a source has 1 to {MAX_TEXT} characters; one has {len(source)}"
            raise Fail(reason, code="invalid_as_fresh_as")
        if not -(2**63) <= version < 2**63:
            raise Fail(f"as_fresh_as: {short(source)} has no version beyond 64 bits", code="invalid_as_fresh_as")


def check_metadata(metadata: Mapping[str, str]) -> None:
    """Check what comes back with the result."""
    _check_entries("metadata", metadata)


def check_label(field: str, text: str) -> None:
    """Check a short text that names something, such as a tenant."""
    if len(text) > MAX_LABEL:
        raise Fail(f"{field} has {len(text)} characters; {MAX_LABEL} are allowed", code=f"invalid_{field}")


def short(text: str) -> str:
    """Quote a caller's text for a reason, cut to a sensible length."""
    return repr(text if len(text) <= MAX_NAME else text[:MAX_NAME] + "...")


def _check_entries(field: str, entries: Mapping[str, str]) -> None:
    if len(entries) > MAX_ENTRIES:
        raise Fail(f"{field} has {len(entries)} entries; {MAX_ENTRIES} are allowed", code=f"invalid_{field}")
    for name, text in entries.items():
        if not 0 < len(name) <= MAX_NAME:
            raise Fail(f"{field}: a name has 1 to {MAX_NAME} characters; one has {len(name)}", code=f"invalid_{field}")
        if len(text) > MAX_TEXT:
            reason = f"{field}: {short(name)} has {len(text)} characters; {MAX_TEXT} are allowed"
            raise Fail(reason, code=f"invalid_{field}")
