"""Whether a schema registry has our schemas, and registering what it lacks.

What is missing is registered in the order of version numbers over all subjects, so that a registry that was empty gives
the same ids each time, as long as nothing but this has filled it and no subject came later than a version.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby

from pipeline.core.subjects import FULL_TRANSITIVE, Incompatible, OwnSchema, Registered, Subjects


@dataclass(frozen=True, slots=True)
class SubjectState:
    """One subject: our versions, oldest first, each with what it is in the registry (None: missing), and the rest.

    `others` are versions in the registry that are none of ours. `newest` is whether its newest version is ours.
    """

    subject: str
    level: str
    ours: tuple[tuple[OwnSchema, Registered | None], ...]
    others: tuple[Registered, ...]
    newest: bool

    @property
    def missing(self) -> tuple[OwnSchema, ...]:
        """Our versions that the registry lacks, oldest first."""
        return tuple(schema for schema, registered in self.ours if registered is None)

    def differences(self, *, keep_level: bool) -> list[str]:
        """Say in clauses how the registry differs from what it should have; empty where it is equal."""
        found = [f"lacks {schema.file}" for schema in self.missing]
        found += [f"has version {one.version} (id {one.id}, {one.name}), which is none of ours" for one in self.others]
        if not self.newest and not self.missing:
            found.append(f"has another newest version than {self.ours[-1][0].file}")
        if not keep_level and self.level != FULL_TRANSITIVE:
            found.append(f"has compatibility level {self.level} instead of {FULL_TRANSITIVE}")
        return found

    def as_json(self, *, keep_level: bool) -> Mapping[str, object]:
        """Say it for programs."""
        return {
            "subject": self.subject,
            "equal": not self.differences(keep_level=keep_level),
            "level": self.level,
            "newest": self.newest,
            "versions": [
                {
                    "file": schema.file,
                    "version": registered.version if registered else None,
                    "id": registered.id if registered else None,
                }
                for schema, registered in self.ours
            ],
            "others": [{"version": one.version, "id": one.id, "name": one.name} for one in self.others],
        }


@dataclass(frozen=True, slots=True)
class SetLevel:
    """To do: give a subject the level FULL_TRANSITIVE, so that the registry refuses what would break readers."""

    subject: str
    before: str


@dataclass(frozen=True, slots=True)
class Register:
    """To do: register a schema."""

    schema: OwnSchema


Step = SetLevel | Register


@dataclass(frozen=True, slots=True)
class Done:
    """What became of a step: the id of a registered schema, or why it was refused."""

    step: Step
    id: int | None = None
    refusal: str = ""


async def look(subjects: Subjects, schemas: Iterable[OwnSchema]) -> AsyncIterator[SubjectState]:
    """Compare a registry with `schemas`, subject by subject. Changes nothing there. Raises ConfigurationError."""
    for subject, group in groupby(schemas, lambda schema: schema.subject):
        yield await _state(subjects, subject, list(group))


async def _state(subjects: Subjects, subject: str, ours: Sequence[OwnSchema]) -> SubjectState:
    level, versions, found = await asyncio.gather(
        subjects.level(subject), subjects.versions(subject), asyncio.gather(*map(subjects.find, ours))
    )
    forms = {schema.form for schema in ours}
    others = tuple(one for one in versions if one.form not in forms)
    newest = bool(versions) and versions[-1].form == ours[-1].form
    return SubjectState(subject, level, tuple(zip(ours, found, strict=True)), others, newest)


def plan(states: Sequence[SubjectState], *, keep_level: bool) -> list[Step]:
    """List what there is to do: levels first, then what is missing, the oldest versions of all subjects first."""
    levels: list[Step] = [
        SetLevel(state.subject, state.level) for state in states if state.level != FULL_TRANSITIVE and not keep_level
    ]
    missing = [schema for state in states for schema in state.missing]
    return [*levels, *map(Register, sorted(missing, key=lambda schema: (schema.number, schema.subject)))]


async def carry_out(subjects: Subjects, steps: Iterable[Step]) -> AsyncIterator[Done]:
    """Take the steps one by one. After a refusal the later versions of that subject are left out, the rest goes on.

    Raises ConfigurationError where the registry is away: run again, which does what is left.
    """
    refused: set[str] = set()
    for step in steps:
        if isinstance(step, SetLevel):
            await subjects.set_level(step.subject, FULL_TRANSITIVE)
            yield Done(step)
        elif step.schema.subject in refused:
            yield Done(step, refusal=f"{step.schema.file} is left out, since an older version was refused")
        else:
            try:
                yield Done(step, await subjects.register(step.schema))
            except Incompatible as error:
                refused.add(step.schema.subject)
                yield Done(step, refusal=str(error))
