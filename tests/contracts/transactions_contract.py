"""What `Transactions` promise on any broker: one suite for the broker in memory and for Kafka."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence

import pytest

from pipeline.core.ports import Batch, Consumer, NotCommitted, RecordTooLarge, Transactions
from pipeline.core.record import Commit, Outgoing, Partition
from tests.contracts.broker_bench import (
    TURN,
    Bench,
    Opens,
    Owner,
    fill,
    new_topic,
    nothing,
    take,
    turn,
    values,
    write,
)

MAP = "lep1:any text goes along"


def outgoing(topic: str, *texts: str) -> list[Outgoing]:
    """Records for partition 0."""
    return [Outgoing(topic, None, text.encode(), partition=0) for text in texts]


async def result(transactions: Transactions, batch: Batch) -> Exception | None:
    """Begin a batch and wait for its end, which is told once and never inside `begin`."""
    ends: list[Exception | None] = []
    transactions.begin(batch, ends.append)
    assert not ends
    async with asyncio.timeout(40):
        while not ends:
            await asyncio.sleep(0.002)
    await asyncio.sleep(0.01)
    (end,) = ends
    return end


class Site:
    """A source of three records with a member that owns it, and a topic to write to."""

    member: Consumer

    def __init__(self, bench: Bench) -> None:
        """Not set up yet."""
        self.bench = bench
        self.group, self.id = bench.name(), bench.name()
        self.source = self.out = ""

    @classmethod
    async def make(cls, bench: Bench) -> Site:
        """Set it up."""
        site = cls(bench)
        site.source, site.out = await new_topic(bench), await new_topic(bench)
        await fill(bench, site.source, 3)
        site.member, _ = await site.join()
        return site

    async def join(self) -> tuple[Consumer, Owner]:
        """Let a member in that owns the source when this returns, and is known."""
        member, owner = self.bench.consumer(self.group), Owner()
        member.subscribe([self.source], owner)
        await turn([member], lambda: bool(owner.owned) and member.membership() is not None)
        return member, owner

    def batch(self, *texts: str, offset: int = 1, metadata: str = "", member: bytes | None = None) -> Batch:
        """Records, and an offset of the source."""
        word = member or self.member.membership()
        assert word is not None
        return Batch(outgoing(self.out, *texts), {Partition(self.source, 0): Commit(offset, metadata)}, word)

    async def at(self) -> Mapping[Partition, int]:
        """Where the group stands."""
        return await self.bench.cluster.committed(self.group, [self.source])

    async def seen(self, count: int) -> Sequence[bytes | None]:
        """What a reader sees of the topic: exactly `count` records, with no lag left."""
        consumer, name = self.bench.consumer(self.bench.name()), Partition(self.out, 0)
        consumer.subscribe([self.out], Owner())
        records = await take(consumer, count)
        await nothing(consumer, 2)
        end = (await self.bench.cluster.end_offsets([self.out]))[name]
        await turn([consumer], lambda: consumer.positions([name]) == {name: end})
        await consumer.close({})
        return values(records)


class TransactionFacts:
    """All or nothing."""

    async def test_records_and_offsets_together(self, opened: Opens) -> None:
        """A batch that ended well is there whole: its records in order, its offsets, and their metadata."""
        async with opened() as bench:
            site = await Site.make(bench)
            transactions = bench.transactions(site.group, site.id)
            assert await result(transactions, site.batch("a", "b", metadata=MAP)) is None
            assert await result(transactions, site.batch("c", offset=2, metadata=MAP + "!")) is None
            assert await site.at() == {Partition(site.source, 0): 2}
            assert await site.seen(3) == [b"a", b"b", b"c"]
            await site.member.close({})
            _, owner = await site.join()
            assert owner.found == {Partition(site.source, 0): Commit(2, MAP + "!")}

    async def test_offsets_alone(self, opened: Opens) -> None:
        """A batch without records commits its offsets."""
        async with opened() as bench:
            site = await Site.make(bench)
            assert await result(bench.transactions(site.group, site.id), site.batch(offset=3)) is None
            assert await site.at() == {Partition(site.source, 0): 3}

    async def test_refused_record(self, opened: Opens) -> None:
        """Where the cluster refuses a record nothing takes place; it is named, and the others can be written again."""
        async with opened() as bench:
            site = await Site.make(bench)
            small = await new_topic(bench, config={"max.message.bytes": "1000"})
            transactions = bench.transactions(site.group, site.id)
            batch = site.batch("a", "b")
            large = Outgoing(small, None, b"x" * 2000, partition=0)
            mixed = Batch([batch.records[0], large, batch.records[1]], batch.offsets, batch.member)
            error = await result(transactions, mixed)
            assert isinstance(error, NotCommitted)
            assert [(index, type(why)) for index, why in error.refused.items()] == [(1, RecordTooLarge)]
            assert await site.at() == {}
            assert await result(transactions, batch) is None
            assert await site.seen(2) == [b"a", b"b"]

    async def test_no_such_partition(self, opened: Opens) -> None:
        """A record for a partition that does not exist is refused, and the batch with it."""
        async with opened() as bench:
            site = await Site.make(bench)
            batch = site.batch("a")
            astray = Batch([*batch.records, Outgoing(site.out, None, b"b", partition=7)], batch.offsets, batch.member)
            error = await result(bench.transactions(site.group, site.id), astray)
            assert isinstance(error, NotCommitted)
            assert list(error.refused) == [1]
            assert await site.at() == {}

    @pytest.mark.within(90)
    async def test_a_member_that_has_left_is_fenced(self, opened: Opens) -> None:
        """Once its partition is another's, a member's word commits nothing: neither records nor offsets."""
        async with opened() as bench:
            site = await Site.make(bench)
            transactions = bench.transactions(site.group, site.id)
            assert await result(transactions, site.batch("a")) is None
            old = site.member.membership()
            await site.member.close({})
            site.member, _ = await site.join()
            for _ in range(2):
                assert isinstance(await result(transactions, site.batch("zombie", offset=3, member=old)), NotCommitted)
            assert await site.at() == {Partition(site.source, 0): 1}
            assert await result(transactions, site.batch("b", offset=2)) is None
            assert await site.seen(2) == [b"a", b"b"]

    async def test_two_of_the_same_id(self, opened: Opens) -> None:
        """A newer producer of an id fences the older one, whose batch does not take place; tried again it does."""
        async with opened() as bench:
            site = await Site.make(bench)
            older, newer = bench.transactions(site.group, site.id), bench.transactions(site.group, site.id)
            assert await result(older, site.batch("a")) is None
            assert await result(newer, site.batch("b", offset=2)) is None
            error = await result(older, site.batch("c", offset=3))
            assert isinstance(error, NotCommitted), repr(error)
            assert await site.at() == {Partition(site.source, 0): 2}
            assert await result(older, site.batch("c", offset=3)) is None
            assert await site.seen(3) == [b"a", b"b", b"c"]

    async def test_the_id_is_given_back(self, opened: Opens) -> None:
        """When a fenced producer hears of it the id is its own again: it was the newer one that is fenced now."""
        async with opened() as bench:
            site = await Site.make(bench)
            older, newer = bench.transactions(site.group, site.id), bench.transactions(site.group, site.id)
            assert await result(older, site.batch("a")) is None
            assert await result(newer, site.batch("b", offset=2)) is None
            assert isinstance(await result(older, site.batch("c", offset=3)), NotCommitted)
            assert isinstance(await result(newer, site.batch("d", offset=3)), NotCommitted)
            assert await result(newer, site.batch("d", offset=3)) is None
            assert await site.seen(3) == [b"a", b"b", b"d"]

    async def test_a_group_without_members(self, opened: Opens) -> None:
        """Offsets of a group that never has members go with the transactional id alone, backwards too."""
        async with opened() as bench:
            site, group = await Site.make(bench), bench.name()
            out = Partition(site.out, 0)
            transactions = bench.transactions(group, site.id)
            for text, offset in (("a", 7), ("b", 3)):
                batch = Batch(outgoing(site.out, text), {out: Commit(offset, f"replay {text}")}, b"")
                assert await result(transactions, batch) is None
                assert await bench.cluster.committed(group, [site.out]) == {out: offset}
            assert await site.seen(2) == [b"a", b"b"]

    async def test_wait(self, opened: Opens) -> None:
        """`wait` blocks for the end of a batch and tells it; with none under way it returns at once."""
        async with opened() as bench:
            site = await Site.make(bench)
            transactions = bench.transactions(site.group, site.id)
            assert transactions.wait(0.0)
            ends: list[Exception | None] = []
            transactions.begin(site.batch("a"), ends.append)
            with pytest.raises(RuntimeError, match="under way already"):
                transactions.begin(site.batch("b"), ends.append)
            assert transactions.wait(30.0)
            assert ends == [None]
            await asyncio.sleep(0.05)
            assert ends == [None]

    async def test_killed_in_the_middle(self, opened: Opens) -> None:
        """What a killed producer had open is ended by the next one of its id, and is seen by nobody."""
        async with opened() as bench:
            site = await Site.make(bench)
            async with bench.dying(site.group, site.id, site.batch("lost", offset=3)) as dying:
                await dying.kill()
                assert await result(bench.transactions(site.group, site.id), site.batch("a")) is None
            assert await site.at() == {Partition(site.source, 0): 1}
            assert await site.seen(1) == [b"a"]

    @pytest.mark.within(120)
    async def test_the_next_owner_waits_for_the_end(self, opened: Opens) -> None:
        """While a transaction on its offsets is open a partition begins nowhere; it is aborted when nobody ends it.

        What others write behind it is readable from then on.
        """
        async with opened() as bench:
            site = await Site.make(bench)
            async with bench.dying(site.group, site.id, site.batch("lost", offset=3)) as dying:
                await dying.kill()
                assert await write(bench.producer(), outgoing(site.out, "plain")) == [None]
                await site.member.close({})
                member, owner = bench.consumer(site.group), Owner()
                member.subscribe([site.source], owner)
                assert values(await take(member, 3)) == [b"0", b"1", b"2"]
                assert owner.found == {Partition(site.source, 0): None}
            assert await site.seen(1) == [b"plain"]

    async def test_position_steps_over_markers(self, opened: Opens) -> None:
        """A reader's position passes the markers behind the last record, so its lag can reach 0."""
        async with opened() as bench:
            site = await Site.make(bench)
            transactions = bench.transactions(site.group, site.id)
            assert await result(transactions, site.batch("a")) is None
            member, name = bench.consumer(bench.name()), Partition(site.out, 0)
            member.subscribe([site.out], Owner())
            await take(member, 1)
            await turn([member], lambda: member.positions([name]) == {name: 2})
            assert values(await member.fetch(1, TURN)) == []
