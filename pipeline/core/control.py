"""Control: what is paused, which jobs are cancelled, which webhook endpoints are in trouble. Pure values.

The compacted control topic is read into them.

An entry's key spells what it is about (`pause/stage/infer`, `pause/tenant/acme/model/m`, `pause/all`, `cancel/<job>`,
`endpoint/<name>`), so that the topic keeps one record of each; a null value takes the entry back.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from itertools import islice
from urllib.parse import quote, unquote

from pipeline.core.job import Job
from pipeline.core.payloads import Control

MAX_CANCELS = 10_000
"""How many cancellations are kept; the oldest are forgotten first."""

MAX_PAUSES = 1_000
"""How many pauses are kept: each is looked at for each record while any is in force."""

CANCEL_SECONDS = 8 * 86_400.0
"""How long a cancellation is kept: a day longer than any work or retry topic keeps a record."""

MAX_ENDPOINTS = 10_000
"""How many webhook endpoints' troubles are kept."""

CANCELLED, PAUSED = "cancelled", "paused"
"""The code of the failure of a job that was cancelled, and of a deferral by a pause."""

FAILING, DISABLED = "failing", "disabled"
"""The states of a webhook endpoint that are told; one of which nothing is told is open."""

_NARROWING = ("stage", "type", "tenant", "model")


@dataclass(frozen=True, slots=True)
class Admit:
    """Go ahead."""


@dataclass(frozen=True, slots=True)
class Hold:
    """Not now: wait without a slot and without an attempt."""

    reason: str


@dataclass(frozen=True, slots=True)
class Refuse:
    """Never: the job ends by a failure event."""

    code: str
    reason: str


Verdict = Admit | Hold | Refuse
ADMIT = Admit()

Entry = tuple[str, Control | None]
"""A key, and what stands under it; None where that was taken back."""


def key_of(entry: Control) -> str:
    """Spell what an entry is about: the key of its record. Names are percent-encoded, a slash in them included."""
    if entry.state == CANCELLED:
        return f"cancel/{quote(entry.job or '', safe='')}"
    if entry.state in {FAILING, DISABLED}:
        return endpoint_key(entry.endpoint or "")
    told = [(name, getattr(entry, name)) for name in _NARROWING]
    parts = [f"{name}/{quote(value, safe='')}" for name, value in told if value]
    return f"pause/{'/'.join(parts) or 'all'}"


def pause_of(key: str, at_ms: int, operator: str = "", reason: str = "") -> Control | None:
    """Read back which pause a key is of, as it was made; None where it is of none."""
    head, _, told = key.partition("/")
    parts = [] if told == "all" else told.split("/")
    scope = dict(zip(parts[::2], map(unquote, parts[1::2]), strict=False))
    if head != "pause" or not scope.keys() <= {*_NARROWING}:
        return None
    entry = Control.model_validate({**scope, "state": PAUSED, "reason": reason, "operator": operator, "at_ms": at_ms})
    return entry if key_of(entry) == key else None


def endpoint_key(name: str) -> str:
    """Spell the key of what is told of a webhook endpoint."""
    return f"endpoint/{quote(name, safe='')}"


def describe_scope(entry: Control) -> str:
    """Say in words what an entry is about."""
    if entry.state == CANCELLED:
        return f"job {entry.job}"
    if entry.state in {FAILING, DISABLED}:
        return f"webhook endpoint {entry.endpoint}"
    told = [(name, getattr(entry, name)) for name in _NARROWING]
    return ", ".join(f"{name} {value}" for name, value in told if value) or "everything"


def problem(key: str, entry: Control) -> str:
    """Say what is wrong with an entry, so that it has to be ignored; empty where nothing is."""
    if entry.state == CANCELLED and not entry.job:
        return "it cancels no job"
    if entry.state in {FAILING, DISABLED} and not entry.endpoint:
        return "it is about no endpoint"
    if key != key_of(entry):
        return f"its key is not that of its content, {key_of(entry)}"
    return ""


@dataclass(frozen=True, slots=True)
class ControlState:
    """All that is in force, by key; `cancels` by job id, oldest first. Immutable: `fold` makes the next state.

    `endpoints` are the webhook endpoints that are failing or disabled, by name: no work is held for them here.
    """

    pauses: Mapping[str, Control] = field(default_factory=dict)
    cancels: Mapping[str, Control] = field(default_factory=dict)
    endpoints: Mapping[str, Control] = field(default_factory=dict)

    @property
    def quiet(self) -> bool:
        """Whether nothing at all is in force, so that nobody need ask."""
        return not self.pauses and not self.cancels

    def fold(self, entries: Iterable[Entry], now: float) -> ControlState:
        """Return the state after `entries`, which are in the topic's order; `now` in seconds since the epoch.

        Bounded, whatever was written: expired cancellations go, and the oldest beyond `MAX_CANCELS`; pauses beyond
        `MAX_PAUSES` are not taken in. An entry in which `problem` finds something changes nothing.
        """
        pauses, cancels, endpoints = dict(self.pauses), dict(self.cancels), dict(self.endpoints)
        names = {key_of(one): name for name, one in endpoints.items()}
        jobs = {key_of(one): job for job, one in cancels.items()}
        for key, entry in entries:
            pauses.pop(key, None)
            cancels.pop(jobs.pop(key, ""), None)
            endpoints.pop(names.pop(key, ""), None)
            if entry is None or problem(key, entry):
                continue
            if entry.state == CANCELLED and entry.job:
                cancels[entry.job] = entry
                jobs[key] = entry.job
            elif entry.endpoint and entry.state in {FAILING, DISABLED}:
                if len(endpoints) < MAX_ENDPOINTS:
                    endpoints[entry.endpoint] = entry
                    names[key] = entry.endpoint
            elif len(pauses) < MAX_PAUSES:
                pauses[key] = entry
        alive = {job: one for job, one in cancels.items() if not expired(one, now)}
        return ControlState(pauses, dict(islice(alive.items(), max(0, len(alive) - MAX_CANCELS), None)), endpoints)

    def whole(self, stage: str) -> str:
        """Say why all work of `stage` is paused; empty where it is not."""
        return next((_why(one) for one in self.pauses.values() if _stops_all(one, stage)), "")

    def verdict(self, stage: str, job: Job, model: str, now: float) -> Verdict:
        """Say whether a record of `job` may go ahead in `stage`. `model` is the one that answers it."""
        cancelled = self.cancels.get(job.id)
        if cancelled is not None and not expired(cancelled, now):
            return Refuse(CANCELLED, _why(cancelled))
        for one in self.pauses.values():
            if _concerns(one, stage, job, model):
                return Hold(_why(one))
        return ADMIT


def expired(entry: Control, now: float) -> bool:
    """Tell whether an entry is forgotten at `now`: its record may be taken off the topic."""
    return entry.expires_at_ms is not None and now * 1000 >= entry.expires_at_ms


def _stops_all(pause: Control, stage: str) -> bool:
    return pause.stage in (None, "", stage) and not (pause.type or pause.tenant or pause.model)


def _concerns(pause: Control, stage: str, job: Job, model: str) -> bool:
    about = ((pause.stage, stage), (pause.type, job.type), (pause.tenant, job.tenant), (pause.model, model))
    return all(not wanted or wanted == found for wanted, found in about)


def _why(entry: Control) -> str:
    by = f" by {entry.operator}" if entry.operator else ""
    return f"{describe_scope(entry)}: {entry.state}{by}" + (f": {entry.reason}" if entry.reason else "")
