"""What people said and did, as the topics `control`, `letters` and `audit` have it."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field

from pipeline.core.control import describe_scope
from pipeline.core.errors import Outcome
from pipeline.core.payloads import Audit, Control, Letter, Payload
from pipeline.core.ports import Codec
from pipeline.core.record import Record
from pipeline.core.retry import describe

MODELS: Mapping[str, type[Payload]] = {"control": Control, "letters": Letter, "audit": Audit}
"""What is written down of people, by noun."""

MOST_TEXT = 500
MOST_DETAIL = 60
"""The longest detail that is told in a sentence; what a replay keeps for itself is longer."""
LEASE, RERUN = "replaying", "rerun"
TAKEN_BACK = "taken back"


@dataclass(frozen=True, slots=True)
class Note:
    """What somebody did to `subject`, and when (epoch ms). `what` is one word of the topic's own.

    `letter` is the id of the dead letter whose state this is, empty where it is no state; `job` whose it is.
    `problem` is why the record cannot be read.
    """

    at_ms: int
    what: str
    subject: str
    operator: str = ""
    reason: str = ""
    letter: str = ""
    job: str = ""
    details: Mapping[str, str] = field(default_factory=dict)
    problem: str = ""

    def concerns(self, ids: Collection[str]) -> bool:
        """Whether it is about one of these: jobs, events, letters, replays."""
        return any(one in ids for one in (self.subject, self.letter, self.job, *self.details.values()) if one)

    @property
    def text(self) -> str:
        """Say to what it was done, by whom and why."""
        who = f" by {self.operator}" if self.operator else ""
        why = f": {self.reason}" if self.reason else ""
        short = [f"{name} {text}" for name, text in self.details.items() if text and len(text) <= MOST_DETAIL]
        more = f" ({', '.join(short)})" if short else ""
        return f"{self.subject}{who}{why}{more}".strip()


async def note_of(codec: Codec, noun: str, record: Record) -> Note:
    """Read a record of `noun`. Never raises an error: what cannot be read is told as such."""
    key = (record.key or b"").decode("utf-8", "replace")[:MOST_TEXT]
    at_ms = max(record.timestamp_ms, 0)
    if record.value is None:
        return Note(at_ms, TAKEN_BACK, key, letter=key if noun == "letters" else "")
    try:
        payload = await codec.decode(noun, MODELS[noun], record.value)
    except Exception as error:
        why = error.reason if isinstance(error, Outcome) else describe(error)
        return Note(at_ms, "unreadable", key, problem=why[:MOST_TEXT])
    match payload:
        case Control():
            return _control(payload)
        case Letter():
            return _letter(payload, key)
        case Audit():
            return _audit(payload)
    return Note(at_ms, "unreadable", key, problem=f"it is a {type(payload).__name__}")


def _control(entry: Control) -> Note:
    return Note(entry.at_ms, entry.state, describe_scope(entry), entry.operator, entry.reason, job=entry.job or "")


def _letter(entry: Letter, key: str) -> Note:
    told = {
        "to": entry.assignee if entry.state == "assigned" else "",
        "replay": entry.replay,
        "run": str(entry.run) if entry.run else "",
        "replays": str(entry.replays) if entry.replays else "",
    }
    details = {name: text for name, text in told.items() if text}
    about = entry.state in {LEASE, RERUN}
    return Note(
        entry.at_ms,
        entry.state,
        f"job {entry.job}" if entry.state == RERUN else key if about else f"letter {key}",
        entry.operator,
        entry.reason,
        letter="" if about else key,
        job=entry.job,
        details=details,
    )


def _audit(entry: Audit) -> Note:
    return Note(entry.at_ms, entry.action, entry.subject, entry.operator, entry.reason, details=dict(entry.details))
