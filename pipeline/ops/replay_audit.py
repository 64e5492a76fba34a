"""What the audit keeps of a replay: enough for people, and enough to go on with it when its process has died."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, fields, replace

from pydantic import ValidationError

from pipeline.core.errors import ConfigurationError, Reject
from pipeline.core.letter_filter import LetterFilter
from pipeline.core.patch import Patch
from pipeline.core.payloads import Audit
from pipeline.core.ports import Codec, Reader
from pipeline.core.record import Partition
from pipeline.core.replay import Rules
from pipeline.ops.log_scan import scan
from pipeline.ops.replay_plan import Plan, Wanted

MOST_NAMED = 1_000
"""So many letters are kept by their ids; a longer list, which is a file's, has to be given again."""

STARTED = "replay.started"


def details_of(plan: Plan, wanted: Wanted) -> dict[str, str]:
    """Tell what was asked for and planned."""
    asked = {name: _plain(value) for name, value in asdict(wanted.filter).items() if value}
    named = len(wanted.filter.letters)
    if named > MOST_NAMED:
        asked["letters"] = named
    ends: dict[str, dict[int, int]] = {}
    for name, end in plan.ends.items():
        ends.setdefault(name.topic, {})[name.number] = end
    rules = {name: value for name, value in _told(plan.rules).items() if value not in (None, "", False, {})}
    return {
        "filter": json.dumps(asked, sort_keys=True),
        "rules": json.dumps(rules, sort_keys=True),
        "limit": "" if wanted.limit is None else str(wanted.limit),
        "ends": json.dumps(ends),
        "going": str(plan.tally.going),
        "refused": json.dumps(dict(plan.tally.refused), sort_keys=True),
        "usd": f"{plan.tally.cost.usd:.6f}",
    }


async def earlier(reader: Reader, codec: Codec, topic: str, replay: str) -> Audit:
    """Find how a replay was started. Raises ConfigurationError where the audit knows of none of this id."""
    ends = await reader.ends([Partition(topic, 0)])
    found: Audit | None = None
    async for records in scan(reader, {name: range(end) for name, end in ends.items()}):
        for record in records:
            if record.key == replay.encode("utf-8", "replace") and record.value is not None:
                try:
                    audit = await codec.decode("audit", Audit, record.value)
                except Reject:
                    continue
                found = audit if audit.action == STARTED else found
    if found is None:
        raise ConfigurationError(f"--resume {replay}: {topic} tells of no replay of this id")
    return found


def asked_before(audit: Audit, letters: frozenset[str] = frozenset()) -> tuple[Rules, Wanted]:
    """Read from the audit what a replay was asked to do. `letters` are those of its file, where it had one.

    Raises ConfigurationError where that is missing, or cannot be read.
    """
    told = audit.details
    try:
        asked = json.loads(told["filter"])
        if isinstance(asked.get("letters"), int):
            if len(letters) != asked["letters"]:
                raise ConfigurationError(
                    f"replay {audit.subject} was of {asked['letters']} letters in a file: give the same --file again"
                )
            asked["letters"] = letters
        rules = json.loads(told["rules"])
        rules["patch"] = Patch(**rules.get("patch", {}))
        ends = json.loads(told["ends"])
        wanted = Wanted(
            LetterFilter(**asked),
            int(told["limit"]) if told["limit"] else None,
            {Partition(topic, int(number)): end for topic, parts in ends.items() for number, end in parts.items()},
        )
        return replace(Rules(**rules), replay=audit.subject), wanted
    except (KeyError, ValueError, TypeError, AttributeError, ValidationError):
        raise ConfigurationError(
            f"replay {audit.subject} was started by another version of this program: give its options again, with"
            " --resume"
        ) from None


def _told(rules: Rules) -> dict[str, object]:
    told = {one.name: getattr(rules, one.name) for one in fields(rules)}
    return told | {"patch": rules.patch.model_dump(exclude_none=True)}


def _plain(value: object) -> object:
    return sorted(value) if isinstance(value, set | frozenset) else value


Details = Mapping[str, str]
