"""What registering does and says, on a registry that is a dictionary."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import combinations, product
from typing import TypeVar

from pipeline.core.subjects import FULL_TRANSITIVE, Incompatible, OwnSchema, Registered
from pipeline.ops.schema_registry import Done, Register, SetLevel, SubjectState, carry_out, look, plan

T = TypeVar("T")


def own(noun: str, number: int) -> OwnSchema:
    text = f"{noun}{number}"
    return OwnSchema(f"p.{noun}-value", number, f"{noun}/v{number}.avsc", text, text.encode())


OURS = [own("a", 1), own("a", 2), own("b", 1)]


@dataclass
class FakeSubjects:
    """A registry; it refuses the schemas in `refuses`. `asked` are the changes that it was asked for."""

    levels: dict[str, str] = field(default_factory=dict)
    texts: dict[str, list[str]] = field(default_factory=dict)
    refuses: frozenset[str] = frozenset()
    asked: list[str] = field(default_factory=list)
    ids: list[str] = field(default_factory=list)

    async def level(self, subject: str) -> str:
        return self.levels.get(subject, "NONE")

    async def set_level(self, subject: str, level: str) -> None:
        self.asked.append(f"{subject} {level}")
        self.levels[subject] = level

    async def versions(self, subject: str) -> Sequence[Registered]:
        return [
            Registered(version, self.ids.index(text) + 1, text.encode(), text)
            for version, text in enumerate(self.texts.get(subject, ()), 1)
        ]

    async def find(self, schema: OwnSchema) -> Registered | None:
        return next((one for one in await self.versions(schema.subject) if one.form == schema.form), None)

    async def register(self, schema: OwnSchema) -> int:
        if schema.text in self.refuses:
            raise Incompatible(f"{schema.file} is refused")
        self.asked.append(schema.text)
        self.add(schema.subject, schema.text)
        return self.ids.index(schema.text) + 1

    def add(self, subject: str, text: str) -> None:
        self.ids += [text] * (text not in self.ids)
        self.texts.setdefault(subject, []).append(text)


async def states(registry: FakeSubjects) -> list[SubjectState]:
    return [state async for state in look(registry, OURS)]


async def test_an_empty_registry_gets_levels_first_then_the_oldest_versions() -> None:
    """Over all subjects by version number, so that ids come in the same order whenever they are given anew."""
    registry = FakeSubjects()
    steps = plan(await states(registry), keep_level=False)
    assert steps == [
        SetLevel("p.a-value", "NONE"),
        SetLevel("p.b-value", "NONE"),
        Register(OURS[0]),
        Register(OURS[2]),
        Register(OURS[1]),
    ]
    assert registry.asked == []
    done = [one async for one in carry_out(registry, steps)]
    assert registry.asked == ["p.a-value FULL_TRANSITIVE", "p.b-value FULL_TRANSITIVE", "a1", "b1", "a2"]
    assert [one.id for one in done] == [None, None, 1, 2, 3]


def some(items: Sequence[T]) -> list[tuple[T, ...]]:
    """All selections."""
    return [chosen for number in range(len(items) + 1) for chosen in combinations(items, number)]


async def test_whatever_was_there_a_second_run_has_nothing_to_do() -> None:
    """Only what is missing is registered, only what is weaker is set, and then nothing is missing."""
    subjects = ["p.a-value", "p.b-value"]
    for there, strict, keep_level in product(some(OURS), some(subjects), (False, True)):
        await register_twice(there, strict, keep_level)


async def register_twice(there: Sequence[OwnSchema], strict: Sequence[str], keep_level: bool) -> None:
    registry = FakeSubjects(dict.fromkeys(strict, FULL_TRANSITIVE))
    for schema in there:
        registry.add(schema.subject, schema.text)
    steps = plan(await states(registry), keep_level=keep_level)
    assert {step.schema for step in steps if isinstance(step, Register)} == set(OURS) - set(there)
    assert all(one.refusal == "" for one in [done async for done in carry_out(registry, steps)])
    after = await states(registry)
    assert plan(after, keep_level=keep_level) == []
    complete = [state.missing or state.others for state in after]
    assert complete == [(), ()]
    assert set(registry.levels) == (set(strict) if keep_level else {schema.subject for schema in OURS})


async def test_a_refusal_leaves_the_later_versions_of_that_subject_out_only() -> None:
    """The rest is registered; each that is not says why."""
    registry = FakeSubjects(refuses=frozenset({"a1"}))
    done = [one async for one in carry_out(registry, map(Register, [OURS[0], OURS[2], OURS[1]]))]
    assert done == [
        Done(Register(OURS[0]), refusal="a/v1.avsc is refused"),
        Done(Register(OURS[2]), id=1),
        Done(Register(OURS[1]), refusal="a/v2.avsc is left out, since an older version was refused"),
    ]


async def test_each_difference_is_named() -> None:
    """Missing versions, versions of others, a newest one that is not ours, a level under which readers may break."""
    registry = FakeSubjects({"p.b-value": "BACKWARD"})
    registry.add("p.a-value", "a2")
    registry.add("p.a-value", "x")
    registry.add("p.b-value", "b1")
    first, second = await states(registry)
    assert first.differences(keep_level=True) == ["lacks a/v1.avsc", "has version 2 (id 2, x), which is none of ours"]
    assert second.differences(keep_level=True) == []
    assert second.differences(keep_level=False) == ["has compatibility level BACKWARD instead of FULL_TRANSITIVE"]
    assert first.as_json(keep_level=True) == {
        "subject": "p.a-value",
        "equal": False,
        "level": "NONE",
        "newest": False,
        "versions": [
            {"file": "a/v1.avsc", "version": None, "id": None},
            {"file": "a/v2.avsc", "version": 1, "id": 1},
        ],
        "others": [{"version": 2, "id": 2, "name": "x"}],
    }


async def test_an_older_version_registered_last_is_a_difference() -> None:
    """Tools that write with the newest version of a subject would write an old one."""
    registry = FakeSubjects({"p.a-value": FULL_TRANSITIVE})
    registry.add("p.a-value", "a2")
    registry.add("p.a-value", "a1")
    (state, _) = await states(registry)
    assert state.differences(keep_level=False) == ["has another newest version than a/v2.avsc"]
