"""The stages that the workload runs, each with what it promises."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Literal

from pipeline.broker.topics import TopicSpec
from pipeline.core import names
from pipeline.core.retry import RetryPolicy
from pipeline.core.stage import Policy, Stage, Topic, stage
from pipeline.runtime.plan import Plan, plan
from tests.system.workload.notes import DELAYS, TIER_SECONDS, Act, Note

NOTES = "notes"
"""The noun that the workload writes to; other nouns are the outputs of the variant of that name."""

Promise = Literal["at most once", "at least once", "exactly once"]
Order = Literal["strict", "steady", "none"]
"""`strict`: the outputs of a key are in order. `steady`: those of notes that took no tier are. `none`: in any order."""


@dataclass(frozen=True, slots=True)
class Variant:
    """A stage of the workload.

    `source` is a noun: the notes', or another variant's name to stand behind it. `put_off` is for how many seconds the
    notes are put off whose script says `tier`.
    """

    name: str
    source: str = NOTES
    promise: Promise = "at least once"
    order: Order = "steady"
    put_off: float = TIER_SECONDS
    policy: Policy = field(default_factory=Policy)

    def stage(self) -> Stage:
        """Declare the stage."""
        policy: Policy = {"concurrency": 16, "retry": RetryPolicy(DELAYS), **self.policy}
        return stage(self.name, Topic(self.source, Note), Topic(self.name, Note), partial(Act, self.put_off), **policy)

    def plan(self, prefix: str) -> Plan:
        """Bind the stage to names."""
        return plan(self.stage(), prefix)


_ALL = (
    Variant("bykey"),
    Variant("behind", source="bykey"),
    # Its keys wait for a retry, so it is to come soon.
    Variant("inplace", order="strict", put_off=1.0, policy={"retry": RetryPolicy(DELAYS, in_place=True)}),
    Variant("unordered", order="none", policy={"order": "none"}),
    # What was committed before it was handled is its old owner's alone, who may be later than the new one's next.
    Variant("atmost", promise="at most once", order="none", policy={"delivery": "at most once"}),
)
VARIANTS: Mapping[str, Variant] = {variant.name: variant for variant in _ALL}


def chosen(wanted: Sequence[str]) -> list[Variant]:
    """Find variants by name, all of them where none is named. Raises ValueError for an unknown name."""
    unknown = [name for name in wanted if name not in VARIANTS]
    if unknown:
        raise ValueError(f"no variant is called {', '.join(unknown)}: there are {', '.join(VARIANTS)}")
    return [VARIANTS[name] for name in wanted or VARIANTS]


def topics(variants: Sequence[Variant], prefix: str, partitions: int) -> list[TopicSpec]:
    """Say which topics the variants need."""
    wanted = [names.topic(prefix, NOTES), names.topic(prefix, "failures")]
    for variant in variants:
        bound = variant.plan(prefix)
        wanted += [bound.output_topic(None), *bound.tiers, bound.dead_letters]
    return [TopicSpec(name, partitions) for name in wanted]
