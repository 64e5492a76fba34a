"""The schemas that records in Confluent's wire format name: 00, the id in 4 bytes big-endian, the record."""

from __future__ import annotations

from typing import Protocol

from pipeline.wire.avro import AvroSchema, parse
from pipeline.wire.bounds import SchemaError

CONFLUENT = b"\x00"
CONFLUENT_HEAD = 5
_MAX_SCHEMA_ID = 2**31 - 1


class SchemaRegistry(Protocol):
    """Where schemas have ids that records name."""

    async def schema(self, schema_id: int) -> str:
        """The JSON of the schema with this id. Raises Reject for an unknown one, Defer where the registry is away."""
        ...

    async def id_of(self, noun: str, schema: str) -> int:
        """The id of `schema` among those of `noun`. Raises Defer where it is not registered, or the registry away."""
        ...

    async def check(self) -> None:
        """Raises Defer where an id that it told means something else by now, or the registry is away."""
        ...


class Unwritten(ValueError):
    """A value that was written with no schema we can have. The message is about "it"; `code` is for programs."""

    def __init__(self, why: str, code: str = "undecodable") -> None:
        """Keep the code beside the reason."""
        super().__init__(why)
        self.code = code


class Registered:
    """Schemas of a registry, each asked for and parsed once."""

    def __init__(self, registry: SchemaRegistry | None) -> None:
        """Ask `registry`, where there is one."""
        self._registry = registry
        self._known: dict[int, AvroSchema | str] = {}

    async def writer_of(self, value: bytes) -> AvroSchema:
        """Find the schema of a value that begins with 00. Raises Unwritten, or Reject or Defer as the registry does."""
        if len(value) < CONFLUENT_HEAD:
            raise Unwritten("it ends within its schema registry frame (00 and 4 bytes of schema id)")
        schema_id = int.from_bytes(value[1:CONFLUENT_HEAD], "big")
        if schema_id > _MAX_SCHEMA_ID:
            # A registry would call the question wrong, not the id unknown, and the record would wait for ever.
            raise Unwritten(f"no registry has a schema of id {schema_id}", "unknown_schema")
        schema = self._known.get(schema_id) or await self._fetch(schema_id)
        if isinstance(schema, str):
            raise Unwritten(f"its schema, id {schema_id} of the registry, {schema}", "unknown_schema")
        return schema

    async def check(self) -> None:
        """Ask whether ids still mean what they did. Raises Defer where not: then no record is to blame."""
        if self._registry is not None:
            await self._registry.check()

    async def _fetch(self, schema_id: int) -> AvroSchema | str:
        """Ask the registry, and remember the answer for ever: an id never changes its schema, be it good or bad."""
        if self._registry is None:
            why = f"it names id {schema_id} of a schema registry and none is configured: set SCHEMA_REGISTRY_URL"
            raise Unwritten(why, "unknown_schema")
        text = await self._registry.schema(schema_id)
        try:
            schema: AvroSchema | str = parse(text)
        except SchemaError as error:
            schema = str(error)
        return self._known.setdefault(schema_id, schema)
