"""Whether the topics on a broker are as the pipeline needs them. Pure: compares what is with what must be."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class TopicState:
    """A topic's partition count, and its settings by Kafka's names."""

    partitions: int
    config: Mapping[str, str]


def problems(
    found: Mapping[str, TopicState], wanted: Mapping[str, TopicState], chain: Iterable[str], longest_seconds: float
) -> list[str]:
    """List in sentences what is wrong with `found`, and the cure.

    Topics of the `chain` must have one partition count, since outputs keep their source's partition number. Records
    must be kept twice as long as the longest deadline or deferral, `longest_seconds`.
    """
    missing = [f"{name} does not exist: run `pipeline topics create`" for name in wanted if name not in found]
    present = [name for name in wanted if name in found]
    settings = [text for name in present for text in _settings(name, found[name], wanted[name], longest_seconds)]
    return [*missing, *_partitions(found, chain), *settings]


def foreign_problems(
    found: Mapping[str, TopicState], topics: Iterable[str], longest_seconds: float, largest_bytes: int
) -> list[str]:
    """List in sentences what is wrong with foreign topics, and the cure. Others make them, so we ask for little.

    They may be compacted: what is kept then is the newest state of each key, and that is what we are after. A record of
    more than `largest_bytes` could not be put aside where it fails.
    """
    return [text for name in topics for text in _foreign(name, found.get(name), longest_seconds, largest_bytes)]


def _foreign(name: str, found: TopicState | None, longest_seconds: float, largest_bytes: int) -> Iterator[str]:
    if found is None:
        yield (
            f"{name} does not exist, and PIPELINE_TABLES names it: its connector makes it with the first record of the "
            "table; if that has been written, correct the name"
        )
        return
    if "delete" in found.config.get("cleanup.policy", "delete"):
        yield from _kept(name, found, longest_seconds)
    largest = int(found.config.get("max.message.bytes", "0"))
    if largest > largest_bytes:
        yield (
            f"{name} takes records up to {largest} bytes (max.message.bytes), but one larger than {largest_bytes} that "
            f"cannot be indexed would stop the stage: set it to {largest_bytes} or less"
        )


def _compacted(name: str, found: TopicState, wanted: TopicState) -> Iterator[str]:
    if wanted.partitions == 1 != found.partitions:
        yield f"{name} has {found.partitions} partitions, but only the first is read: delete it and create it again"
    policy = found.config.get("cleanup.policy", "delete")
    if policy != "compact":
        yield f"{name} has cleanup.policy={policy}, which forgets what is in force: set it to compact"


def _partitions(found: Mapping[str, TopicState], chain: Iterable[str]) -> Iterator[str]:
    counts = {name: found[name].partitions for name in chain if name in found}
    if len(set(counts.values())) > 1:
        most = max(counts.values())
        small = ", ".join(f"{name} ({count})" for name, count in sorted(counts.items()) if count < most)
        yield (
            f"the topics of the chain must have one partition count, the largest is {most}, but fewer have: {small}: "
            "raise theirs"
        )


def _settings(name: str, found: TopicState, wanted: TopicState, longest_seconds: float) -> Iterator[str]:
    if wanted.config.get("cleanup.policy") == "compact":
        yield from _compacted(name, found, wanted)
        return
    policy = found.config.get("cleanup.policy", "delete")
    if policy != "delete":
        yield f"{name} has cleanup.policy={policy}, which drops records that were not handled yet: set it to delete"
    yield from _kept(name, found, longest_seconds)
    largest, needed = int(found.config.get("max.message.bytes", "0")), int(wanted.config["max.message.bytes"])
    if 0 < largest < needed:
        yield f"{name} takes records up to {largest} bytes (max.message.bytes), but {needed} are needed"
    kind = found.config.get("message.timestamp.type", "CreateTime")
    if kind != "CreateTime":
        yield f"{name} has message.timestamp.type={kind}: set it to CreateTime, delays are counted from it"


def _kept(name: str, found: TopicState, longest_seconds: float) -> Iterator[str]:
    kept = int(found.config.get("retention.ms", "-1"))
    if 0 <= kept < 2_000 * longest_seconds:
        yield (
            f"{name} keeps records for {kept / 1000:g} s (retention.ms={kept}), but a record may wait for "
            f"{longest_seconds:g} s: set retention.ms to at least {int(2_000 * longest_seconds)}"
        )
