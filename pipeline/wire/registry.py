"""A Confluent-compatible schema registry, asked through confluent-kafka's client.

That client blocks, so its calls run in a few threads of their own, each question once at a time, however many records
ask it. Its own retries are off: the runtime retries. Nothing it says is repeated in full, as its errors quote bodies.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from typing import Any, TypeVar
from urllib.parse import SplitResult, unquote, urlsplit

from confluent_kafka.schema_registry import Schema, SchemaRegistryClient
from confluent_kafka.schema_registry.error import SchemaRegistryError

from pipeline.core.errors import ConfigurationError, Defer, Reject
from pipeline.core.names import subject
from pipeline.core.ports import Clock
from pipeline.wire.avro import parse
from pipeline.wire.bounds import SchemaError

T = TypeVar("T")

THREADS = 4
FRESH_SECONDS = 5.0
"""For so long an id that was looked at still has its schema."""
REMEMBERED = 16
"""How many of the last ids that a registry has told are looked at again, to see whether it is still the same."""
_UNKNOWN_ID = (404, 40403)
_UNKNOWN_SUBJECT_OR_SCHEMA = ((404, 40401), (404, 40403))


@dataclass(frozen=True, slots=True)
class RegistryConfig:
    """Where the registry is and how it is used.

    `url` may list several, separated by commas, and may carry one user and password. `timeout` bounds one question and
    `backoff` is the wait after a failed one, both in seconds. `auto_register` is for development: in production a
    person registers schemas. `options` are further settings of confluent-kafka's client, such as `ssl.ca.location`.
    """

    url: str = field(repr=False)
    prefix: str
    auto_register: bool = False
    timeout: float = 5.0
    backoff: float = 5.0
    options: Mapping[str, str] = field(default_factory=dict, repr=False)


@asynccontextmanager
async def open_registry(config: RegistryConfig, clock: Clock) -> AsyncIterator[Registry]:
    """Use a registry until the block ends. Asks it nothing yet. Raises ConfigurationError."""
    addresses, credentials = _split(config.url)
    settings = {
        **config.options,
        **({"basic.auth.user.info": credentials} if credentials else {}),
        "url": ",".join(addresses),
        "timeout": config.timeout,
        "max.retries": 0,
    }
    try:
        client = SchemaRegistryClient(settings)
    except (OSError, TypeError, ValueError) as error:
        # Not chained, and without its text: that may quote a password.
        raise ConfigurationError(
            f"the schema registry's client refuses its settings ({type(error).__name__}): "
            f"check SCHEMA_REGISTRY_URL and {', '.join(sorted(config.options)) or 'its credentials'}"
        ) from None
    pool = ThreadPoolExecutor(THREADS, thread_name_prefix="schema-registry")
    registry = Registry(client, pool, config, clock)
    try:
        yield registry
    finally:
        registry.leave()
        pool.shutdown(wait=False, cancel_futures=True)
        client.close()


class Registry:
    """The SchemaRegistry of `wire.codec`, which remembers the answers.

    A registry that was wiped gives ids anew, so that old records name nothing, or another schema. Before it is believed
    about an id that is new here, it is asked again about some that it has told: if it has forgotten one, or gives it to
    another schema, nothing new is believed until it is restored or this process starts again. A process that was told
    nothing before the wipe cannot see it.
    """

    def __init__(
        self, client: SchemaRegistryClient, pool: ThreadPoolExecutor, config: RegistryConfig, clock: Clock
    ) -> None:
        """Ask `client` in the threads of `pool`."""
        self._client = client
        self._pool = pool
        self._config = config
        self._clock = clock
        self._address = ", ".join(_split(config.url)[0])
        self._asked: dict[object, asyncio.Future[Any]] = {}
        self._told: dict[int, str] = {}
        self._looked = clock()

    @property
    def client(self) -> SchemaRegistryClient:
        """Confluent's client, for calls given to `ask`."""
        return self._client

    @property
    def address(self) -> str:
        """Where it is, without credentials."""
        return self._address

    async def schema(self, schema_id: int) -> str:
        """The JSON of the schema with this id. Raises Reject for an unknown one, Defer where the registry is away."""
        try:
            found = await self.ask(schema_id, lambda: self._client.get_schema(schema_id))
        except SchemaRegistryError as error:
            if (error.http_status_code, error.error_code) == _UNKNOWN_ID:
                await self._look_again()
                raise self._unusable(schema_id, "is not known there") from error
            raise self.refused(error) from error
        await self.check()
        if found.schema_type not in (None, "AVRO"):
            raise self._unusable(schema_id, "is not an Avro schema")
        if found.references:
            raise self._unusable(schema_id, "refers to other schemas: register it whole, in one text")
        text = found.schema_str or ""
        self._remember(schema_id, text)
        return text

    async def id_of(self, noun: str, schema: str) -> int:
        """The id of `schema` under the subject of `noun`. Raises Defer where it is not there, or nobody answers.

        An unregistered schema is no fault of the record: it waits until a person has registered the schema.
        """
        name = subject(self._config.prefix, noun)
        wanted = Schema(schema, "AVRO")
        try:
            if self._config.auto_register:
                found = await self.ask(name, lambda: self._client.register_schema_full_response(name, wanted, True))
            else:
                # Normalised: the same schema with other white space or docs is the same one.
                found = await self.ask(name, lambda: self._client.lookup_schema(name, wanted, True))
        except SchemaRegistryError as error:
            if (error.http_status_code, error.error_code) in _UNKNOWN_SUBJECT_OR_SCHEMA:
                raise self._defer(
                    f"lacks the newest schema of {noun} under the subject {name}: run `pipeline schemas register`"
                ) from error
            if error.http_status_code == 409:
                raise self._defer(
                    f"finds the newest schema of {noun} incompatible with others under the subject {name} (HTTP 409): "
                    "`pipeline schemas register` says in which field"
                ) from error
            raise self.refused(error) from error
        if found.schema_id is None:
            raise self._defer(f"gave the schema of {noun} no id")
        self._remember(found.schema_id, schema)
        return found.schema_id

    async def check(self) -> None:
        """Ask again about the last ids that it has told, but for `FRESH_SECONDS` after the last time.

        Raises Defer where one is gone or has another schema now, or the registry is away.
        """
        if self._clock() >= self._looked + FRESH_SECONDS:
            await self._look_again()

    async def _look_again(self) -> None:
        self._client.clear_caches()  # type: ignore[no-untyped-call]  # confluent-kafka's own
        told = dict(self._told)
        changes = await asyncio.gather(*(self._change(schema_id, text) for schema_id, text in told.items()))
        changed = [change for change in changes if change]
        if changed:
            raise self._defer(
                f"is not the one it was: {changed[0]}. It was wiped or replaced, or the schema was "
                "deleted. Restore its backup; without one, run `pipeline schemas register`, then start the stages again"
            )
        self._looked = self._clock()

    async def _change(self, schema_id: int, text: str) -> str:
        """Say in a clause what has become of an id that it told; empty where nothing has."""
        try:
            found = await self.ask(("again", schema_id), lambda: self._client.get_schema(schema_id))
        except SchemaRegistryError as error:
            if (error.http_status_code, error.error_code) == _UNKNOWN_ID:
                return f"it has forgotten id {schema_id}, {_name(text)}"
            raise self.refused(error) from error
        if _form(found.schema_str or "") == _form(text):
            return ""
        return f"its id {schema_id} was {_name(text)} and is another schema now, {_name(found.schema_str or '')}"

    def _remember(self, schema_id: int, text: str) -> None:
        self._told.pop(schema_id, None)
        self._told[schema_id] = text
        if len(self._told) > REMEMBERED:
            del self._told[next(iter(self._told))]

    def leave(self) -> None:
        """Give up the questions under way: what they meet with now is nobody's concern, and no error unseen."""
        for asked in self._asked.values():
            asked.cancel()

    async def ask(self, question: object, call: Callable[[], T]) -> T:
        """Await `call` in a thread. Raises Defer without an answer in time, SchemaRegistryError for a no."""
        asked = self._asked.get(question)
        if asked is None:
            asked = asyncio.get_running_loop().run_in_executor(self._pool, call)
            self._asked[question] = asked
            asked.add_done_callback(lambda done: self._answered(question, done))
        try:
            async with asyncio.timeout(self._config.timeout):
                # A record that stops waiting does not take the answer from the others.
                answer: T = await asyncio.shield(asked)
        except SchemaRegistryError:
            raise
        except TimeoutError as error:
            raise self._defer(f"has not answered within {self._config.timeout:g} s") from error
        except Exception as error:
            raise self._defer(f"cannot be reached or understood ({type(error).__name__})") from error
        return answer

    def _answered(self, question: object, done: asyncio.Future[Any]) -> None:
        del self._asked[question]
        if not done.cancelled():
            done.exception()  # looked at, so that asyncio does not complain where nobody waits any more

    def refused(self, error: SchemaRegistryError) -> Defer:
        """What a no means that nobody expected. Without its text, which may quote a body."""
        return self._defer(f"refuses to answer (HTTP {error.http_status_code}, code {error.error_code})")

    def _defer(self, what: str) -> Defer:
        until = self._clock() + self._config.backoff
        return Defer(f"the schema registry at {self._address} {what}", until=until, code="schema_registry")

    def _unusable(self, schema_id: int, why: str) -> Reject:
        text = f"the value names schema id {schema_id} of the registry at {self._address}, which {why}"
        return Reject(text, code="unknown_schema")


def _form(text: str) -> object:
    """What is the same for schemas that are written the same way on the wire."""
    try:
        return parse(text).fingerprint
    except SchemaError:
        return text


def _name(text: str) -> str:
    try:
        return parse(text).name
    except SchemaError:
        return "which is no record"


def _split(url: str) -> tuple[list[str], str]:
    """Split off the credentials, which the client and its HTTP library would show in their errors and logs."""
    parts = [_address(each.strip()) for each in url.split(",")]
    credentials = {_credentials(part) for part in parts if part.username is not None}
    if len(credentials) > 1:
        raise ConfigurationError("SCHEMA_REGISTRY_URL names several users: give all its addresses the same one")
    return [part._replace(netloc=part.netloc.rpartition("@")[2]).geturl() for part in parts], "".join(credentials)


def _address(text: str) -> SplitResult:
    with suppress(ValueError):
        part = urlsplit(text)._replace(query="", fragment="")
        if part.scheme in ("http", "https") and part.hostname and part.port != 0:  # `port` raises for what is none
            return part
    raise ConfigurationError("SCHEMA_REGISTRY_URL must be one or more addresses like https://registry.example:8081")


def _credentials(part: SplitResult) -> str:
    return f"{unquote(part.username or '')}:{unquote(part.password or '')}"
