"""A small pipeline on the broker in memory, and who explains it: `open` -> first -> `in` -> work -> `deliveries`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from pipeline.core import headers as h
from pipeline.core import names
from pipeline.core.payloads import Audit, Control, Delivery, Payload
from pipeline.core.record import Outgoing, Partition, Position, Record
from pipeline.core.stage import Stage, Topic
from pipeline.devkit.clock import wall
from pipeline.ops.explain import Answer, Explainer, Question
from pipeline.ops.explain_layout import Layout, layout
from pipeline.ops.explain_story import Story
from tests.runtime.world import FAILURES, IN, OPEN, Script, World

DELIVERIES = Topic("deliveries", Delivery)
FIRST = World.stage(OPEN, output=IN, name="first", repartition=True)
WORK = World.stage(IN, output=DELIVERIES, name="work", enforce_deadline=True)
TELL = World.stage(FAILURES, output=DELIVERIES, name="tell")
STAGES = (FIRST, WORK, TELL)
LAYOUT = layout("t", STAGES)

DELIVERED = Delivery(
    endpoint="crm", webhook_id="hook-1", kind="job.completed", outcome="delivered", status=200, finished_at_ms=1
)


class Site:
    """A world with all topics of the pipeline."""

    def __init__(self, world: World) -> None:
        self.world = world

    @classmethod
    async def make(cls, partitions: int = 2) -> Site:
        """Make all topics."""
        site = cls(await World.make(partitions))
        await site.world.create("t.deliveries", "t.letters")
        await site.world.create("t.control", "t.audit", partitions=1)
        for stage in STAGES:
            tiers = [names.retry_topic("t", stage.name, tier) for tier in stage.retry.tiers]
            dead = names.dead_letter_topic("t", stage.name)
            await site.world.create(*tiers, dead, max_message_bytes="2097152")
        return site

    @classmethod
    async def waiting(cls) -> Site:
        """Make a site with one job, "a", that has come as far as `work`, which does not run."""
        site = await cls.make()
        await site.start(FIRST)
        site.ask("a")
        await site.world.until(lambda: site.end("t.in"))
        await site.world.settle()
        return site

    async def start(self, stage: Stage, **answers: list[Any]) -> None:
        """Start a stage. What nobody scripts is handed on as a note."""
        await self.world.start(Script(**answers), stage)

    def ask(self, text: str, ce_id: str = "one") -> Record:
        """Send a request."""
        return self.world.put(text, topic="t.open", headers={h.CE_ID: ce_id, h.CE_SOURCE: "test"})[0]

    def say(self, noun: str, key: str, payload: Payload | None) -> None:
        """Write what a person said or did."""
        value = None if payload is None else payload.model_dump_json().encode()
        self.world.broker.append(Outgoing(f"t.{noun}", key.encode(), value, (), 0))

    def control(self, key: str, **entry: Any) -> None:
        """Write an entry of the control topic."""
        self.say("control", key, Control(**{"at_ms": int(wall() * 1000), "operator": "bob", **entry}))

    def explainer(self, known: Layout = LAYOUT) -> Explainer:
        """Who answers."""
        broker = self.world.broker
        return Explainer(known, broker.reader(committed=True), broker, self.world.codec, wall)

    def audited(self, what: str, key: str, reason: str = "") -> None:
        """Tell the audit of a word of the control topic."""
        told = Audit(action=f"control.{what}", subject=key, operator="bob", reason=reason, at_ms=int(wall() * 1000))
        self.say("audit", key, told)

    async def answer(self, identity: str, **asked: Any) -> Answer:
        """Ask."""
        return await self.explainer().answer(Question(identity, **asked))

    async def story(self, identity: str, **asked: Any) -> Story:
        """Ask for the one job of an id."""
        (story,) = (await self.answer(identity, **asked)).stories
        return story

    def job(self) -> str:
        """The id of the only job that has come to `work`."""
        (record,) = self.world.records("t.in")
        return h.texts(record.headers)[h.CE_SUBJECT]

    def copy(self, letter: Record, identity: str, replay: str, **changes: str) -> Position:
        """Bring a dead letter back as a replay does."""
        gone = (h.DEAD, h.X_ORIGINAL)
        kept = tuple(one for one in letter.headers if not one[0].startswith(gone) and one[0] not in h.COPY_SCOPED)
        original = next(one for one in letter.headers if one[0] == h.ORIGINAL)
        fresh = {h.ATTEMPTS: "0", h.DEFERRALS: "0", h.TIMEOUTS: "0", h.NOT_BEFORE: str(int(wall() * 1000))}
        fresh |= {h.REPLAY_ID: replay, h.REPLAY_LETTER: identity, h.REPLAY_COUNT: "1", **changes}
        told = tuple((name, text.encode()) for name, text in fresh.items())
        headers = (*kept, original, *told)
        topic = "t.work.retry.10s"
        return self.world.broker.append(Outgoing(topic, letter.key, letter.value, headers, letter.partition))

    def letters(self) -> Sequence[Record]:
        """The dead letters of `work`."""
        return self.world.dead("work")

    def end(self, topic: str) -> int:
        """How many records a topic has."""
        return sum(self.world.broker.range(Partition(topic, number))[1] for number in range(self.world.partitions))
