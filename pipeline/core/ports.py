"""The ports: what the runtime and the stages need from the world, as Protocols. `clients`, `broker` and `wire` fill
them, `devkit` fakes them, `wiring` joins them. Each has one contract suite under `tests/contracts/`.

Errors: where a docstring names no other, a port raises only the outcomes of `core.errors`.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol, TypeVar

from pipeline.core.control import Verdict
from pipeline.core.endpoints import EndpointState, Heard
from pipeline.core.errors import Outcome
from pipeline.core.index_ports import Freshness, PassageSearch, PassageStore
from pipeline.core.job import Job
from pipeline.core.payloads import Payload
from pipeline.core.record import Commit, Outgoing, Partition, Record

P = TypeVar("P", bound=Payload)

Clock = Callable[[], float]
"""Seconds since the epoch."""

# ------------------------------------------------------------------ bytes and events


class Codec(Protocol):
    """Bytes to payloads and back, for one set of schemas."""

    async def decode(self, noun: str, payload: type[P], value: bytes) -> P:
        """Decode `value` as a record of `noun`. Raises Reject (with a reason for people) or Defer (registry down)."""
        ...

    async def encode(self, noun: str, payload: Payload) -> bytes:
        """Encode with the newest schema of `noun`. Raises Reject (does not fit the schema) or Defer."""
        ...


# ------------------------------------------------------------------ broker

Delivered = Callable[[Exception | None], None]
"""Called once, on the event loop, when the broker has acknowledged a record (None) or never will (the reason)."""


class RecordTooLarge(Exception):
    """The broker's or the topic's limit refuses a record of this size."""


class Producer(Protocol):
    """Writes records. Idempotent, all replicas acknowledge, order per partition is kept."""

    def send(self, record: Outgoing, delivered: Delivered) -> None:
        """Queue a record and return at once. `delivered` is called exactly once for each record, never inside `send`.

        Errors handed to `delivered`: RecordTooLarge, or another exception where the topic or partition does not exist
        or the cluster refuses for good. A broker that is away is no error: records wait for it. What it acknowledges
        without an offset is written again, under the same id.
        """
        ...

    async def flush(self, timeout: float) -> int:
        """Wait up to `timeout` seconds until all is acknowledged; returns how many records still are not."""
        ...


class Rebalance(Protocol):
    """How a consumer's owner hears of its partitions. All are called on the event loop and MUST NOT block."""

    def assigned(self, partitions: Mapping[Partition, Commit | None]) -> None:
        """Partitions arrived, to be read from where the group stands; None: from the beginning."""
        ...

    def leaving(self, partitions: Sequence[Partition]) -> bool:
        """Partitions will leave in a moment, and nothing more is to be begun for them; whether something runs for them
        that might come to its end in that moment.

        Asked again and again meanwhile, or not at all where the event loop has no time; `revoked` or `lost` follows.
        """
        ...

    def revoked(self, partitions: Sequence[Partition]) -> Mapping[Partition, Commit]:
        """Partitions are leaving; returns what to commit for them before they go."""
        ...

    def lost(self, partitions: Sequence[Partition]) -> None:
        """Partitions are gone already; nothing may be committed for them."""
        ...


class Consumer(Protocol):
    """One member of a consumer group. One owner uses it from one event loop.

    `pause`, `resume` and `commit` state a wish and return at once; the adapter carries them out in order before the
    next fetch. A pause does not survive a rebalance. Commits fail silently in a rebalance (the next owner repeats).
    """

    def subscribe(self, topics: Sequence[str], rebalance: Rebalance) -> None:
        """Join the group for `topics`. Once per consumer."""
        ...

    async def fetch(self, limit: int, timeout: float) -> Sequence[Record]:
        """Return up to `limit` records as soon as there is one, or none after about `timeout` seconds.

        Must be called regularly, also when everything is paused: it keeps the membership alive and runs `Rebalance`.
        Raises Halt where going on would do harm: an offset out of range (naming the missing range), a group or topic
        that may not be read.
        """
        ...

    def pause(self, partitions: Sequence[Partition]) -> None:
        """Stop fetching from `partitions`; unknown ones are ignored."""
        ...

    def resume(self, partitions: Sequence[Partition]) -> None:
        """Go on fetching from `partitions`; nothing is lost or repeated in between."""
        ...

    def commit(self, offsets: Mapping[Partition, Commit]) -> None:
        """Commit `offsets` soon. Each replaces what the group had, metadata included."""
        ...

    def committed(self, partitions: Sequence[Partition]) -> Mapping[Partition, int]:
        """Return how far commits of this member are acknowledged; partitions without any are left out."""
        ...

    def positions(self, partitions: Sequence[Partition]) -> Mapping[Partition, int]:
        """Return where reading stands, past transaction markers; partitions without a position are left out."""
        ...

    async def close(self, offsets: Mapping[Partition, Commit]) -> None:
        """Commit `offsets` for certain and leave the group. Idempotent."""
        ...

    def missing(self) -> Sequence[str]:
        """Name the subscribed topics that are known not to exist; for `/readyz`."""
        ...

    def connected(self) -> bool:
        """Whether the broker has answered lately; for `/readyz`."""
        ...

    def membership(self) -> bytes | None:
        """Return who this member is, for `Transactions`; None while that is not known, which the first call may change.

        It may be a little old. That is safe: the group refuses it once partitions have moved (KIP-447).
        """
        ...

    def name(self) -> str:
        """Return what the group calls this member; empty while that is not known, which the first call may change.

        It stays the same for as long as the group has not put the member out.
        """
        ...


@dataclass(frozen=True, slots=True)
class Batch:
    """One transaction: `records` in their order, and how far the group is with what led to them.

    `member` is what `Consumer.membership` has said while the partitions of `offsets` were that member's. It is empty
    for a group that never has members: then nothing but the transactional id guards its offsets.
    """

    records: Sequence[Outgoing]
    offsets: Mapping[Partition, Commit]
    member: bytes


class NotCommitted(Exception):
    """Nothing of a batch took place, and nothing will. `refused`: by index, why the cluster never takes a record."""

    def __init__(self, reason: str, refused: Mapping[int, Exception] | None = None) -> None:
        """Keep the reason for people, and the refusals for whoever brings those records to another end."""
        super().__init__(reason)
        self.refused = refused or {}


Ended = Callable[[Exception | None], None]
"""How a batch ended: None where all of it took place, NotCommitted where nothing did, Halt where nothing ever can."""


class Transactions(Protocol):
    """Writes records and commits a group's offsets, all together or not at all (KIP-98, KIP-447). One batch at a time.

    What became of a batch is always found out, also where the broker's answer was lost. A broker that is away is no
    error: the batch waits for it. Readers with isolation.level=read_committed see a batch whole or not at all.

    A newer producer of the same transactional id fences the older one, whose batch then does not take place. By the
    time it hears of that, the id is the older one's again: whatever the newer one had begun will not take place either.
    """

    def begin(self, batch: Batch, ended: Ended) -> None:
        """Begin to write and commit a batch, and return at once. `ended` is called once, on the loop, and not in here.

        The offsets of a member whose partitions have moved on are refused, and its records with them.
        """
        ...

    def wait(self, seconds: float) -> bool:
        """Block the loop for the end of the batch under way, `seconds` at most; says whether `ended` was called.

        For the moments in which partitions leave, and no others.
        """
        ...


class Reader(Protocol):
    """Reads partitions without a group, up to their very ends (read_uncommitted), and commits nothing.

    `follow` and `leave` state a wish and return at once; the next fetch carries it out. From then on no record is
    returned that was read before. One owner uses it from one event loop.
    """

    async def ends(self, partitions: Collection[Partition]) -> Mapping[Partition, int]:
        """Look up the next offset to be written of each partition; those that do not exist are left out.

        Waits for a broker as long as it takes, and says in the log what for. May be called while a fetch waits.
        """
        ...

    def follow(self, partition: Partition, offset: int) -> None:
        """Read a partition from `offset` on, or from its log's beginning where the log does not have that.

        Once more for the same partition goes there. A partition that does not exist is waited for.
        """
        ...

    def leave(self, partitions: Collection[Partition]) -> None:
        """Read these no more; unknown ones are ignored."""
        ...

    async def fetch(self, limit: int, timeout: float) -> Sequence[Record]:
        """Return up to `limit` records as soon as there is one, or none after about `timeout` seconds.

        In order within a partition. A broker that is away is waited for. May be cancelled without losing records.
        Raises Halt where a topic may not be read.
        """
        ...

    def positions(self) -> Mapping[Partition, int]:
        """Return where reading stood after the last fetch, past transaction markers; never ahead of what it returned.

        Partitions that are not read yet are left out.
        """
        ...

    async def close(self) -> None:
        """Stop. Idempotent."""
        ...


# ------------------------------------------------------------------ admission


class Admission(Protocol):
    """Whether records may be handled now. Asked on the event loop before a record takes a slot; answers at once."""

    @property
    def quiet(self) -> bool:
        """Whether all is admitted, so that nobody need ask."""
        ...

    def whole(self, stage: str) -> str:
        """Say why all work of a stage has to wait, so that none of it need be taken; empty where it need not."""
        ...

    def verdict(self, stage: str, job: Job) -> Verdict:
        """Say whether a record of `job` may be handled by `stage` now."""
        ...

    def watch(self, changed: Callable[[], None]) -> None:
        """Call `changed` on the event loop each time when answers may have changed: then ask again."""
        ...


# ------------------------------------------------------------------ model


@dataclass(frozen=True, slots=True)
class ChatCall:
    """One call of a chat model. `request_id` is the idempotency key; `timeout` is in seconds."""

    model: str
    system: str
    user: str
    max_output_tokens: int
    temperature: float
    request_id: str
    timeout: float
    json_schema: Mapping[str, object] | None = None


@dataclass(frozen=True, slots=True)
class ChatAnswer:
    """What the provider answered. `usage_estimated` marks token counts that are ours because it sent none."""

    text: str
    refusal: str | None
    finish_reason: str
    model: str
    request_id: str
    prompt_tokens: int
    completion_tokens: int
    usage_estimated: bool
    latency: float = field(compare=False, default=0.0)


class ChatModel(Protocol):
    """A provider of chat completions. Never retries by itself: the runtime does."""

    async def complete(self, call: ChatCall) -> ChatAnswer:
        """Make one call. Raises Defer (rate limit, until when; a spent quota, a wrong key or a provider that is
        down: not our turn), Retry (server or connection error, unreadable answer) and Reject (the provider refuses
        the request itself: malformed, content filter, context too long)."""
        ...


# ------------------------------------------------------------------ foreign topics


class RecordDecoder(Protocol):
    """Reads records of topics that are not ours, with their keys and headers. Knows its topics by name."""

    @property
    def topics(self) -> Collection[str]:
        """The topics it reads."""
        ...

    async def decode(self, record: Record, topic: str) -> Payload:
        """Decode a record that first stood on `topic`; a value may be null. Returns `Nothing` where nothing is asked.

        Raises Reject (with a reason for people), Defer (a registry or a database is away) or Retry (one errs).
        """
        ...


# ------------------------------------------------------------------ webhooks


@dataclass(frozen=True, slots=True)
class WebhookMessage:
    """One message to one endpoint. `id` is the same over all retries; `body` is the JSON text that is signed.

    `url` is an address that a request has brought and its tenant's list allows; all else is the endpoint's.
    """

    endpoint: str
    id: str
    body: bytes
    url: str | None = None


@dataclass(frozen=True, slots=True)
class WebhookAnswer:
    """How one attempt went. `status` is None where no answer came; `refusal` is what the stage raises, None for a 2xx.

    The refusal is Defer (429 or 503 with Retry-After), Fail with code `gone` (410), else Retry.
    """

    status: int | None
    response_bytes: int = 0
    refusal: Outcome | None = None


class WebhookSender(Protocol):
    """Posts signed Standard Webhooks to endpoints known by name."""

    async def post(self, message: WebhookMessage) -> WebhookAnswer:
        """Post once and tell how that went. Redirects are not followed.

        Raises where no attempt was made: Defer with code `endpoint_busy` (the endpoint has as much under way as it
        wants) until its turn comes, Fail with code `no_endpoint` (there is none of that name) or `forbidden_address`.
        """
        ...


class EndpointBook(Protocol):
    """What is known of the webhook endpoints, by name: the same for all workers, a moment later."""

    def state(self, name: str) -> EndpointState:
        """Tell whether an endpoint may be posted to, and since when it fails or is disabled. Answers at once."""
        ...

    async def heard(self, name: str, heard: Heard, now: float) -> None:
        """Hear how an attempt went that ended at `now`. What that changes counts here from the return on.

        A first failure is noted, a success takes it back; days of failure, and a 410 at once, disable the endpoint, and
        leave an audit record: that is the operational event, so whoever is to be told follows the audit topic. Raises
        nothing: what cannot be written now is said in the log, and written after the next attempt.
        """
        ...


# ------------------------------------------------------------------ outside

OUTSIDE: tuple[type, ...] = (ChatModel, Freshness, PassageSearch, PassageStore, WebhookSender)
"""The ports behind which the world is: what was done there cannot be taken back with a transaction."""
