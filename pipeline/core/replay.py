"""Replay: which dead letters go back, where to, and what their copies say. Pure decisions.

A copy stands on the first tier of the stage that gave up, due at once, as that stage's own retry would: key, value and
what the sender wrote byte for byte, with a count of tries that begins anew and with word of the replay.
"""

from __future__ import annotations

from collections.abc import Callable, Container, Iterable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import NamedTuple

from pipeline.core import headers as h
from pipeline.core import names
from pipeline.core.event import MAX_HOPS
from pipeline.core.headers import Origin
from pipeline.core.letter import LetterHead
from pipeline.core.letter_state import UNDONE, LetterState
from pipeline.core.patch import Patch, overridden
from pipeline.core.payloads import JobPayload, Payload
from pipeline.core.record import Header, Headers, Outgoing, Position, Record
from pipeline.core.replay_patch import NO_PATCH
from pipeline.core.stage import Stage

MAX_REPLAYS = 3
"""How often a piece of work is replayed, unless said otherwise, until it is quarantined."""
GUARD_SECONDS = 600.0
"""For so long after a replay what came back from it with the same failure stays where it is."""
MAX_GONE_HOPS = MAX_HOPS - 5
"""More stages than this a record has passed only in a loop: the longest way on has five."""

REPLAYED, QUARANTINED = "replayed", "quarantined"
OWN, MAXIMUM = "own", "max_replays"

REFUSALS: Mapping[str, str] = {
    "replayed": "were replayed already; --again replays them once more",
    "resolved": "are resolved; `pipeline dlq reopen` makes them open again",
    "purged": "are purged",
    QUARANTINED: "are quarantined; mend the cause, `pipeline dlq reopen` them, and raise --max-replays",
    MAXIMUM: "have been replayed as often as --max-replays allows: the run quarantines them",
    OWN: "came back from this very replay",
    "loop": "came back from their last replay with the same failure just now; mend the cause, or wait for --guard",
    "hops": "have passed too many stages: topics are wired in a loop",
    "stage": "are of a stage that does not exist; --to names the one that takes them",
    "foreign": "are not the pipeline's own; --to names the stage that takes them",
    "no_position": "do not say where they first stood, so no stage can tell what they are",
    "not_read": "first stood on a topic that the stage of --to does not read",
    "topic": "have no topic to go to; run `pipeline topics create`",
    "partition": "have no partition to go to; run `pipeline topics grow`",
    "deadline": "are of jobs whose deadline has passed; --extend SECONDS gives them more time",
    "undecodable": "cannot be decoded, not even now; --undecodable replays them all the same",
    "unpatchable": "carry no job that --set could change",
    "no_job": "do not tell their job, so no run of it can be named",
    "later": "are of a stage that does not come after the one of --from",
    "not_kept": "have no record left on the source topic of the stage of --from",
    "too_large": "are too large for the retry topic with their new headers",
    "gone": "were deleted meanwhile",
    "limit": "are beyond --limit",
}
"""Why a letter stays where it is, by a word for programs; the text follows a number of letters."""


@dataclass(frozen=True, slots=True)
class Rules:
    """What one replay was asked to do. `guard` and `extend` are in seconds.

    `most` is how often work is replayed at all. `to` is the stage that takes letters of other families and of stages
    that are no more, `source` the earlier stage that jobs are done again from.
    """

    replay: str
    again: bool = False
    most: int = MAX_REPLAYS
    guard: float = GUARD_SECONDS
    extend: float | None = None
    undecodable: bool = False
    patch: Patch = NO_PATCH
    to: str = ""
    source: str = ""

    @property
    def patched(self) -> bool:
        """Whether anything is set."""
        return self.patch is not NO_PATCH and self.patch != NO_PATCH

    @property
    def rerun(self) -> bool:
        """Whether the work is done as another run, so that its answers are new events."""
        return bool(self.source) or self.patched


@dataclass(frozen=True, slots=True)
class Seen:
    """What the value of a letter shows: its job's id and deadline (epoch ms), and its payload; `why` it shows none."""

    payload: Payload | None = None
    job: str = ""
    deadline_ms: int | None = None
    why: str = ""


@dataclass(frozen=True, slots=True)
class Case:
    """A letter, what is known of it, and where it would go.

    `state` is what people have done about it. `stage` is the one that takes it, None where there is none; it reads
    `sources`. `before` is the failure that it was replayed for before, with the time of that replay (epoch ms).
    `partitions` is how many the topic has that it would go to, 0 where there is none; `deadline_ms` is that of its last
    replay. `follows`: its own stage comes after the one of `Rules.source`.
    """

    head: LetterHead
    state: LetterState
    stage: Stage | None
    seen: Seen
    sources: Container[str] = ()
    partitions: int = 0
    before: tuple[str, int] | None = None
    deadline_ms: int | None = None
    follows: bool = True

    @property
    def replays(self) -> int:
        """How often this work has been replayed, in all its lives."""
        return replays(self.head, self.state)

    @property
    def job(self) -> str:
        """Its job's id, empty where nothing tells it."""
        return self.head.job or self.seen.job


def replays(head: LetterHead, state: LetterState) -> int:
    """Tell how often the work of a letter has been replayed, in all its lives."""
    return max(head.replays if head.family == "pipeline" else 0, state.replays)


def refusal(case: Case, rules: Rules, now: float) -> str:
    """Say why a letter stays where it is, by one of `REFUSALS`; empty where it goes."""
    return next((word for check in _CHECKS if (word := check(case, rules, now))), "")


def closed(state: LetterState, rules: Rules) -> str:
    """Say by which of `REFUSALS` a letter in this state stays where it is; empty where it may go."""
    if state.state in UNDONE:
        return ""
    if state.state == REPLAYED and state.replay == rules.replay:
        return OWN
    return "" if state.state == REPLAYED and rules.again else state.state


def _by_state(case: Case, rules: Rules, _: float) -> str:
    return OWN if case.head.replay_id == rules.replay else closed(case.state, rules)


def _by_place(case: Case, rules: Rules, _: float) -> str:
    head, stage = case.head, case.stage
    if stage is None:
        return "stage"
    if rules.source:
        return "" if case.follows else "later"
    if head.family != "pipeline" and rules.to != stage.name:
        return "foreign"
    if head.origin is None:
        return "no_position"
    # Its own stage may have read a foreign topic that is not mapped any more, and says best what that means.
    own = head.family == "pipeline" and head.stage == stage.name
    return "" if own or head.origin.position.topic in case.sources else "not_read"


def _by_target(case: Case, rules: Rules, _: float) -> str:
    if not case.partitions:
        return "topic"
    keeps = case.stage is not None and not case.stage.repartition and not rules.source
    return "partition" if keeps and case.head.position.partition >= case.partitions else ""


def _by_history(case: Case, rules: Rules, now: float) -> str:
    if case.head.hops > MAX_GONE_HOPS:
        return "hops"
    if case.replays >= rules.most:
        return MAXIMUM
    if case.before is None:
        return ""
    failure, at_ms = case.before
    return "loop" if failure == case.head.fingerprint and now * 1000 - at_ms < rules.guard * 1000 else ""


def _by_time(case: Case, rules: Rules, now: float) -> str:
    told = (case.deadline_ms, case.seen.deadline_ms, case.head.deadline_ms)
    ends = next((one for one in told if one is not None), None)
    return "deadline" if rules.extend is None and ends is not None and ends <= now * 1000 else ""


def _by_value(case: Case, rules: Rules, _: float) -> str:
    if case.seen.why and not (rules.undecodable or rules.source):
        return "undecodable"
    if rules.rerun and not case.job:
        return "no_job"
    strange = case.seen.payload is not None and not isinstance(case.seen.payload, JobPayload)
    return "unpatchable" if rules.patched and strange else ""


_CHECKS: tuple[Callable[[Case, Rules, float], str], ...] = (
    _by_state,
    _by_place,
    _by_target,
    _by_history,
    _by_time,
    _by_value,
)


def reaches(stages: Iterable[Stage], first: Stage, last: Stage) -> bool:
    """Whether what `first` writes leads to `last`, over any number of stages; each leads to itself."""
    known = list(stages)
    found, ahead = {first.name}, [first]
    while ahead:
        written = {topic.noun for topic in ahead.pop().outputs}
        following = [one for one in known if one.name not in found and written & {topic.noun for topic in one.sources}]
        found.update(one.name for one in following)
        ahead += following
    return last.name in found


# ------------------------------------------------------------------ copies


@dataclass(frozen=True, slots=True)
class Marks:
    """What a copy says of its replay, and what it changes.

    `patch` is `Patch.text`; nothing is said of what is empty or None. `deadline_ms` is in epoch milliseconds.
    `place` is where the letter stands, which the copy settles. Who follows a costly stage's answers sees copies of open
    and aborted transactions too, and would else take them for such as settle the original.
    """

    replay: str
    letter: str
    count: int
    run: int | None = None
    patch: str = ""
    deadline_ms: int | None = None
    place: Position | None = None

    def headers(self) -> Headers:
        """Spell them."""
        told: list[Header] = [
            (h.REPLAY_ID, self.replay.encode("ascii", "replace")),
            (h.REPLAY_LETTER, self.letter.encode("ascii", "replace")),
            (h.REPLAY_COUNT, b"%d" % self.count),
        ]
        if self.run is not None:
            told.append((h.REPLAY_RUN, b"%d" % self.run))
        if self.patch:
            told.append((h.REPLAY_PATCH, h.quoted(self.patch).encode("ascii")))
        if self.deadline_ms is not None:
            told.append((h.REPLAY_DEADLINE, b"%d" % self.deadline_ms))
        if self.place is not None:
            told.append((h.SETTLES, str(self.place).encode("ascii")))
        return tuple(told)


def former(record: Record) -> tuple[int | None, Patch, int | None]:
    """Read the run, the patch and the deadline that an earlier replay has given a letter of our own."""
    if not any(name == h.REPLAY_ID for name, _ in record.headers):
        return NEVER
    read = h.texts(record.headers)
    run = h.count(read.get(h.REPLAY_RUN))
    return run or None, overridden(h.unquoted(read.get(h.REPLAY_PATCH))), h.deadline(read.get(h.REPLAY_DEADLINE))


NEVER: tuple[int | None, Patch, int | None] = (None, NO_PATCH, None)
"""What a letter that was never replayed has of an earlier replay."""


def copy(record: Record, origin: Origin, target: Target, marks: Marks, now_ms: int) -> Outgoing:
    """Make the copy that goes back, of a letter or of a record of a source topic."""
    now = b"%d" % now_ms
    kept = [header for header in record.headers if not _left_behind(header[0])]
    fresh: tuple[Header, ...] = (
        (h.ATTEMPTS, b"0"),
        (h.DEFERRALS, b"0"),
        (h.TIMEOUTS, b"0"),
        (h.ORIGINAL, h.quoted(str(origin)).encode("ascii")),
        (h.FIRST_FAILURE, _first_failure(record, origin) or now),
        # Not after the copy's own timestamp, so that it leaves its tier at once.
        (h.NOT_BEFORE, now),
    )
    partition = None if target.by_key else record.partition
    return Outgoing(target.topic, record.key, record.value, (*kept, *fresh, *marks.headers()), partition)


def _first_failure(record: Record, origin: Origin) -> bytes | None:
    if origin.position == record.position:
        return None  # on an original it is somebody's forgery
    told = dict(record.headers).get(h.FIRST_FAILURE)
    return told if told is not None and told.isdigit() and len(told) < _DIGITS else None


_DIGITS = 17  # more than the latest time has that a header may claim


class Target(NamedTuple):
    """Where what goes back to a stage is written: its first tier, which no other stage reads.

    `by_key`: the key chooses the partition; else a record keeps the number that it has.
    """

    stage: str
    topic: str
    by_key: bool


def target(stage: Stage, prefix: str) -> Target:
    """Say where what goes back to `stage` is written."""
    return Target(stage.name, names.retry_topic(prefix, stage.name, stage.retry.tiers[0]), stage.repartition)


_OTHERS = ("kafka_dlt-", "retry_topic-", "__connect.errors.", "__streams.errors.")
"""What dead letters of other families have for headers: Spring, Connect (KIP-298), Streams (KIP-1034)."""


@lru_cache(maxsize=4_096)
def _left_behind(name: str) -> bool:
    return name in h.COPY_SCOPED or name.startswith((h.DEAD, h.X_ORIGINAL, h.REPLAY, *_OTHERS))
