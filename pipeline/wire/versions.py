"""Which version of which schema a value was written with: told by its frame alone, without reading the rest."""

from __future__ import annotations

from pipeline.core.errors import PipelineError
from pipeline.wire.codec import SINGLE_OBJECT
from pipeline.wire.registered import CONFLUENT, CONFLUENT_HEAD, Registered, SchemaRegistry, Unwritten
from pipeline.wire.schemas import Schemas

NONE, UNFRAMED = "none", "unframed"
"""Of a null value, and of one that has no frame we know."""

_SINGLE_OBJECT_HEAD = 10
_MOST = 4_096  # frames are a sender's: no more are remembered


class ValueVersions:
    """Names the schema's version of a value: `contexts/v1`; where it is not one of ours, what the frame says."""

    def __init__(self, schemas: Schemas, registry: SchemaRegistry | None = None) -> None:
        """Look fingerprints up in `schemas`, and ask `registry`, where there is one, what ids mean."""
        self._schemas = schemas
        self._registered = Registered(registry)
        self._asks = registry is not None
        self._known: dict[bytes, str] = {}

    def at_once(self, value: bytes | None) -> str | None:
        """Name the version where nobody need be asked for it; else None: then `of` finds out."""
        if value is None:
            return NONE
        if value[:2] == SINGLE_OBJECT:
            return self._known.get(value[:_SINGLE_OBJECT_HEAD])
        return self._known.get(value[:CONFLUENT_HEAD]) if value[:1] == CONFLUENT else UNFRAMED

    async def of(self, value: bytes | None) -> str:
        """Name the version. A registry that is away, or has never heard of an id, is no error: the id is told."""
        found = self.at_once(value)
        if found is not None or value is None:
            return found or NONE
        confluent = value[:1] == CONFLUENT
        found = await self._by_id(value) if confluent else self._by_fingerprint(value)
        if len(self._known) < _MOST:
            # Also what could not be found out: a million letters do not ask a registry that is away a million times.
            self._known[value[: CONFLUENT_HEAD if confluent else _SINGLE_OBJECT_HEAD]] = found
        return found

    def _by_fingerprint(self, value: bytes) -> str:
        if len(value) < _SINGLE_OBJECT_HEAD:
            return UNFRAMED
        fingerprint = value[2:_SINGLE_OBJECT_HEAD]
        return self._named(fingerprint) or f"unknown 0x{fingerprint[::-1].hex()}"

    async def _by_id(self, value: bytes) -> str:
        if len(value) < CONFLUENT_HEAD:
            return UNFRAMED
        number = f"id {int.from_bytes(value[1:CONFLUENT_HEAD], 'big')}"
        if not self._asks:
            return number
        try:
            schema = await self._registered.writer_of(value)
        except (PipelineError, Unwritten):
            return number
        return self._named(schema.fingerprint) or f"{schema.name} ({number})"

    def _named(self, fingerprint: bytes) -> str:
        version = self._schemas.by_fingerprint(fingerprint)
        return f"{version.noun}/v{version.number}" if version else ""
