"""What each topic carries. Each model equals the newest schema of its noun under `schemas/` (a test holds that)."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from pipeline.core.job import Job, Lane


class Payload(BaseModel):
    """The typed body of an event: frozen, and closed to fields nobody declared."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    def advance(self, job: Job) -> Job:
        """Return what holds for the job once this payload has been derived from it; most payloads change nothing."""
        return job


class JobPayload(Payload):
    """A payload of the chain: where its outcome goes, and what comes back with it.

    `endpoint` is an endpoint's name; a URL only where the catalog lets the job's tenant bring one.
    """

    endpoint: str | None = None
    metadata: dict[str, str] = Field(default_factory=dict)


class Request(JobPayload):
    """What upstream services send. Only `type` and `input` are needed.

    `id` makes a repeat the same job; `key` is the ordering key (a conversation, a document) where the Kafka key is
    null; `deadline_ms` is the time allowed, in milliseconds from acceptance. `as_fresh_as` says of sources which of
    their versions the index must have before passages are looked for: retrieval waits for it until the deadline.
    """

    type: str
    input: str
    id: str | None = None
    tenant: str | None = None
    key: str | None = None
    lane: Lane | None = None
    deadline_ms: int | None = None
    conversation: str | None = None
    filters: dict[str, str] = Field(default_factory=dict)
    as_fresh_as: dict[str, int] = Field(default_factory=dict)


class Prompt(JobPayload):
    """A request that was accepted: normalised, measured, and placed in a lane with a deadline (epoch milliseconds)."""

    type: str
    input: str
    input_tokens: int
    lane: Lane
    deadline_ms: int
    catalog: str
    conversation: str | None = None
    filters: dict[str, str] = Field(default_factory=dict)
    as_fresh_as: dict[str, int] = Field(default_factory=dict)

    def advance(self, job: Job) -> Job:
        """Put the job into its lane, under its deadline and the catalog's version that decided both."""
        return job.advanced(
            type=self.type,
            lane=self.lane,
            deadline_ms=self.deadline_ms,
            catalog=self.catalog,
            conversation=self.conversation or "",
        )


class Passage(Payload):
    """A chunk of a document, as the index returned it. A higher `score` is a better match; scales differ by query."""

    source: str
    document: str
    chunk: int
    version: int
    score: float
    title: str
    text: str


class RetrievedContext(JobPayload):
    """A prompt with the passages found for it, best first."""

    input: str
    passages: tuple[Passage, ...] = ()


class Completion(JobPayload):
    """A model's answer as the provider gave it, with what it cost. `usage_estimated` marks counts that are ours."""

    input: str
    passages: tuple[Passage, ...] = ()
    model: str
    text: str
    refusal: str | None = None
    finish_reason: str
    prompt_tokens: int
    completion_tokens: int
    usage_estimated: bool = False
    request_id: str = ""
    latency_ms: int
    cost_usd: float

    def advance(self, job: Job) -> Job:
        """Add what this call cost to what the job has cost so far."""
        return job.advanced(cost_usd=job.cost_usd + self.cost_usd)


class Citation(Payload):
    """One passage that the answer points at by `[number]`."""

    number: int
    source: str
    document: str
    chunk: int
    version: int
    title: str


class Result(JobPayload):
    """A checked answer. `data` is the answer as JSON text when its type has an output schema."""

    answer: str
    data: str | None = None
    citations: tuple[Citation, ...] = ()
    truncated: bool = False
    model: str
    finish_reason: str
    prompt_tokens: int
    completion_tokens: int
    cost_usd: float
    latency_ms: int


class Failure(JobPayload):
    """A job that ended without a result (`recoverable` False), or stands in a dead-letter topic (True)."""

    stage: str
    code: str
    reason: str
    recoverable: bool = False
    failed_at_ms: int


class Message(JobPayload):
    """A webhook that keeps its place among its key's: `body` is the JSON text as it will be signed and posted."""

    webhook_id: str
    kind: Literal["job.completed", "job.failed"]
    body: str


class Delivery(JobPayload):
    """One attempt at one webhook, or what became of it without any. `webhook_id` is the same over all attempts.

    `outcome` "failed" is an attempt that will be followed by another; all others are the end. `status` is the HTTP
    status, `code` says for programs what `reason` says for people, `attempts` counts this one.
    """

    webhook_id: str
    kind: Literal["job.completed", "job.failed"]
    outcome: Literal["delivered", "failed", "undeliverable", "suppressed"]
    reason: str = ""
    status: int | None = None
    attempts: int = 0
    finished_at_ms: int
    code: str = ""
    duration_ms: int = 0
    request_bytes: int = 0
    response_bytes: int = 0


class Document(Payload):
    """One state of one document of a source. A higher `version` is newer; `deleted` removes it from the index.

    `fields` are what a request may filter by. `committed_at_ms` is when the source committed this state. Where
    `body_kept` is set the body is unchanged and not told: `body` is empty, and the text is that of the version before,
    of the document `former` if its id has changed. `emptied` removes all documents of the source, up to this version.
    """

    source: str
    id: str
    tenant: str
    title: str
    body: str
    version: int
    deleted: bool = False
    fields: dict[str, str] = Field(default_factory=dict)
    committed_at_ms: int | None = None
    body_kept: bool = False
    former: str | None = None
    emptied: bool = False


class Nothing(Payload):
    """What a record of a foreign topic asks for that is known to ask for nothing: a tombstone, a heartbeat."""

    why: str


class Control(Payload):
    """What all workers have to know: work that is paused, jobs that are cancelled, webhook endpoints that fail.

    A pause is narrowed by each of `stage`, `type`, `tenant` and `model` that is given. An `endpoint` is failing since
    `at_ms` without a success in between, or disabled. Times are epoch ms. `core.control` has the rules.
    """

    state: Literal["paused", "cancelled", "failing", "disabled"]
    stage: str | None = None
    type: str | None = None
    tenant: str | None = None
    model: str | None = None
    job: str | None = None
    reason: str = ""
    operator: str = ""
    at_ms: int
    expires_at_ms: int | None = None
    endpoint: str | None = None


class Letter(Payload):
    """What people have done about a dead letter; one without such an entry is open. `core.letter` has the rules.

    `topic`, `partition` and `offset` are the dead letter's own place. `replay` is the id of the replay that brought it
    back, `replays` how often that has happened to this work in all, `run` the run that it was brought back as.
    Two entries are about no letter: "rerun" keeps the highest `run` of a `job`, "replaying" who replays just now.
    """

    state: Literal["assigned", "replayed", "resolved", "purged", "quarantined", "rerun", "replaying"]
    topic: str = ""
    partition: int = 0
    offset: int = 0
    job: str = ""
    operator: str = ""
    reason: str = ""
    at_ms: int
    assignee: str = ""
    replay: str = ""
    replays: int = 0
    run: int = 0


class Audit(Payload):
    """What somebody has done to the pipeline: `action` to `subject`, when and why. `details` are for people."""

    action: str
    subject: str = ""
    operator: str = ""
    reason: str = ""
    at_ms: int
    details: dict[str, str] = Field(default_factory=dict)
