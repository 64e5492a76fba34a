"""Telling all workers what is paused and which jobs are cancelled: entries of the control topic, and their words."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from pipeline.core.catalog import Catalog
from pipeline.core.control import CANCEL_SECONDS, ControlState, Entry, describe_scope, key_of
from pipeline.core.errors import ConfigurationError
from pipeline.core.payloads import Audit, Control


@dataclass(frozen=True, slots=True)
class Scope:
    """What a pause is about; None does not narrow it."""

    stage: str | None = None
    type: str | None = None
    tenant: str | None = None
    model: str | None = None

    def checked(self, stages: Iterable[str], catalog: Catalog) -> Scope:
        """Return itself. Raises ConfigurationError for a name that is not known, which would hold nothing."""
        known: Mapping[str, Iterable[str] | None] = {
            "stage": stages,
            "type": catalog.types,
            "model": catalog.models,
            "tenant": catalog.tenants,
        }
        for what, names in known.items():
            name = getattr(self, what)
            if name is not None and (not name or (names is not None and name not in names)):
                there = f"there are {', '.join(names)}" if names is not None else "give its name"
                raise ConfigurationError(f"no {what} is called {name!r}: {there}")
        return self

    @property
    def narrow(self) -> bool:
        """Whether it is about less than everything."""
        return any((self.stage, self.type, self.tenant, self.model))

    def pause(self, reason: str, operator: str, now: float) -> Control:
        """Make the entry that pauses it."""
        return Control(
            state="paused",
            stage=self.stage,
            type=self.type,
            tenant=self.tenant,
            model=self.model,
            reason=reason,
            operator=operator,
            at_ms=int(now * 1000),
        )


def pausing(scope: Scope, reason: str, operator: str, now: float) -> list[Entry]:
    """Pause a scope."""
    entry = scope.pause(reason, operator, now)
    return [(key_of(entry), entry)]


def resuming(scope: Scope, state: ControlState) -> list[Entry]:
    """Take back the pause of exactly this scope. Raises ConfigurationError where there is none."""
    wanted = scope.pause("", "", 0.0)
    if (key := key_of(wanted)) in state.pauses:
        return [(key, None)]
    there = "; ".join(describe_scope(one) for one in state.pauses.values()) or "nothing"
    raise ConfigurationError(f"{describe_scope(wanted)} is not paused as such: what is paused is {there}")


def cancelling(jobs: Sequence[str], reason: str, operator: str, now: float) -> list[Entry]:
    """Cancel jobs. Raises ConfigurationError for what cannot be the id of one."""
    entries: list[Entry] = []
    for job in dict.fromkeys(jobs):
        if not job or len(job) > 256 or not (job.isascii() and job.isprintable()) or " " in job:
            raise ConfigurationError(f"{job[:80]!r} is no job's id: `pipeline submit` prints the ids of its jobs")
        at, until = int(now * 1000), int((now + CANCEL_SECONDS) * 1000)
        entry = Control(state="cancelled", job=job, reason=reason, operator=operator, at_ms=at, expires_at_ms=until)
        entries.append((key_of(entry), entry))
    return entries


def audited(entries: Iterable[Entry], operator: str, now: float) -> list[Audit]:
    """Tell the audit what was said: an entry that is written, or taken back."""
    at_ms = int(now * 1000)
    return [
        Audit(action=f"control.{entry.state}", subject=key, operator=operator, reason=entry.reason, at_ms=at_ms)
        if entry is not None
        else Audit(action="control.resumed", subject=key, operator=operator, at_ms=at_ms)
        for key, entry in entries
    ]


def listed(state: ControlState) -> list[dict[str, object]]:
    """List what is in force, the pauses first, each as its record has it, without what it leaves open."""
    entries = (*state.pauses.values(), *state.cancels.values(), *state.endpoints.values())
    return [one.model_dump(mode="json", exclude_none=True) for one in entries]
