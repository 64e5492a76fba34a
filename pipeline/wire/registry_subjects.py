"""A schema registry as a person asks it: the Subjects of `core.subjects`, over the client of `registry`."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TypeVar

from confluent_kafka.schema_registry import RegisteredSchema, Schema
from confluent_kafka.schema_registry.error import SchemaRegistryError

from pipeline.core import names
from pipeline.core.errors import ConfigurationError, Defer
from pipeline.core.ports import Clock
from pipeline.core.subjects import Incompatible, OwnSchema, Registered
from pipeline.wire.avro import AvroSchema, parse
from pipeline.wire.bounds import SchemaError
from pipeline.wire.compat import faults
from pipeline.wire.registry import Registry, RegistryConfig, open_registry
from pipeline.wire.schemas import Schemas, Version

T = TypeVar("T")

_MESSAGE_CHARACTERS = 500
_FAULTS = 5
_TRIES = 3
_NO_LEVEL = "NONE"
_NOT_THERE = (40401, 40402, 40403, 40408)
"""No such subject, version, schema, level. Any other 404 is not of this API, or not of a registry."""
_EXCEPTION = re.compile(r"^(?:[\w$]+\.)+[\w$]+: ")


def own_schemas(schemas: Schemas, prefix: str) -> list[OwnSchema]:
    """List all versions of all nouns with their subjects: by noun, oldest first."""
    return [
        OwnSchema(
            names.subject(prefix, noun),
            version.number,
            f"{noun}/{version.path.name}",
            version.schema.text,
            version.schema.fingerprint,
        )
        for noun in schemas.nouns
        for version in schemas.versions(noun)
    ]


@asynccontextmanager
async def open_subjects(config: RegistryConfig, clock: Clock) -> AsyncIterator[RegistrySubjects]:
    """Use a registry until the block ends. Asks it nothing yet. Raises ConfigurationError."""
    async with open_registry(config, clock) as registry:
        yield RegistrySubjects(registry)


class RegistrySubjects:
    """The Subjects of `core.subjects`. Shows nothing of its answers but reasons of a refusal, cut short."""

    def __init__(self, registry: Registry) -> None:
        """Ask through `registry`."""
        self._registry = registry
        self._client = registry.client

    @property
    def address(self) -> str:
        """Where it is, without credentials."""
        return self._registry.address

    async def level(self, subject: str) -> str:
        """See the port. A subject's own NONE counts as none of its own, as Apicurio says it of every subject."""
        own = await self._known(("level", subject), lambda: self._client.get_compatibility(subject))
        if own is not None and own != _NO_LEVEL:
            return own
        return await self._told(("level",), self._client.get_compatibility)

    async def set_level(self, subject: str, level: str) -> None:
        """See the port. Where another process sets it at this moment, Apicurio calls that a conflict: tried again."""
        for tries_left in reversed(range(_TRIES)):
            try:
                await self._ask(("set", subject), lambda: self._client.set_compatibility(subject, level))
                return
            except SchemaRegistryError as error:
                if await self.level(subject) == level:
                    return
                if error.http_status_code != 409 or not tries_left:
                    raise self._refused(error) from error

    async def versions(self, subject: str) -> Sequence[Registered]:
        """See the port."""
        return [_registered(one) for one in await self._all(subject)]

    async def find(self, schema: OwnSchema) -> Registered | None:
        """See the port."""
        wanted = Schema(schema.text, "AVRO")
        found = await self._known(
            ("find", schema), lambda: self._client.lookup_schema(schema.subject, wanted, normalize_schemas=True)
        )
        return None if found is None else _registered(found)

    async def register(self, schema: OwnSchema) -> int:
        """See the port. Normalised, so that white space and docs make no new version.

        A no does not count where another process has registered the same schema meanwhile.
        """
        wanted = Schema(schema.text, "AVRO")
        try:
            found = await self._ask(
                ("register", schema),
                lambda: self._client.register_schema_full_response(schema.subject, wanted, normalize_schemas=True),
            )
        except SchemaRegistryError as error:
            if (there := await self.find(schema)) is not None:
                return there.id
            if error.http_status_code == 409:
                raise await self._incompatible(schema, error) from error
            raise self._refused(error) from error
        if found.schema_id is None:
            raise ConfigurationError(f"the schema registry at {self._registry.address} gave {schema.file} no id")
        return found.schema_id

    async def _incompatible(self, schema: OwnSchema, error: SchemaRegistryError) -> Incompatible:
        said = _EXCEPTION.sub("", str(error.error_message or "it says nothing more"))[:_MESSAGE_CHARACTERS]
        found = await self._faults(schema)
        why = " ".join(found[:_FAULTS]) or "Our own check finds nothing wrong: look at the versions that it has."
        return Incompatible(
            f"{schema.file} is incompatible with what {schema.subject} has (HTTP 409: {said}). {why} If the other "
            f"version is the mistake, delete it in the registry. Then run this again"
        )

    async def _faults(self, schema: OwnSchema) -> list[str]:
        """What our own check says of a schema beside each registered version, for the first where it says anything."""
        for other in await self._all(schema.subject):
            theirs = _parsed(other)
            if isinstance(theirs, AvroSchema):
                number = other.version or 0
                before = Version("", number, Path(f"version {number} of {schema.subject}"), theirs)
                found = faults((before, Version("", number + 1, Path(schema.file), parse(schema.text))))
                if found:
                    return found
        return []

    async def _all(self, subject: str) -> list[RegisteredSchema]:
        numbers = await self._known(("versions", subject), lambda: self._client.get_versions(subject)) or []
        return [await self._version(subject, number) for number in sorted(numbers)]

    async def _version(self, subject: str, number: int) -> RegisteredSchema:
        return await self._told((subject, number), lambda: self._client.get_version(subject, number))

    async def _told(self, question: tuple[object, ...], call: Callable[[], T]) -> T:
        """Await an answer. Raises ConfigurationError for a no."""
        try:
            return await self._ask(question, call)
        except SchemaRegistryError as error:
            raise self._refused(error) from error

    async def _known(self, question: tuple[object, ...], call: Callable[[], T]) -> T | None:
        """Await an answer; None where the registry knows no such thing. Raises ConfigurationError for another no."""
        try:
            return await self._ask(question, call)
        except SchemaRegistryError as error:
            if error.error_code in _NOT_THERE:
                return None
            raise self._refused(error) from error

    async def _ask(self, question: tuple[object, ...], call: Callable[[], T]) -> T:
        try:
            return await self._registry.ask(question, call)
        except Defer as error:
            raise ConfigurationError(
                f"{error.reason}: start it, or mend SCHEMA_REGISTRY_URL, and run this again"
            ) from None

    def _refused(self, error: SchemaRegistryError) -> ConfigurationError:
        cure = "SCHEMA_REGISTRY_URL must name its Confluent-compatible API (Apicurio's ends with /apis/ccompat/v7)"
        if error.http_status_code in (401, 403):
            cure = "check the user and password in SCHEMA_REGISTRY_URL, and what they may do"
        elif error.http_status_code >= 500:
            cure = "its own log says why"
        return ConfigurationError(f"{self._registry.refused(error).reason}: {cure}")


def _registered(found: RegisteredSchema) -> Registered:
    schema = _parsed(found)
    form, name = (schema.fingerprint, schema.name) if isinstance(schema, AvroSchema) else (None, f"which {schema}")
    return Registered(found.version or 0, found.schema_id or 0, form, name)


def _parsed(found: RegisteredSchema) -> AvroSchema | str:
    """A registered schema, or why it is none of a record."""
    if found.schema.schema_type not in (None, "AVRO"):
        return "is not an Avro schema"
    try:
        return parse(found.schema.schema_str or "")
    except SchemaError as error:
        return str(error)
