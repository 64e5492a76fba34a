"""Facts about commits and about members of one group, on any broker."""

from __future__ import annotations

import asyncio

from pipeline.core.record import Commit, Outgoing, Partition
from tests.contracts.broker_bench import (
    PATIENCE,
    TURN,
    Opens,
    Owner,
    fill,
    new_topic,
    nothing,
    numbers,
    take,
    turn,
    values,
    waiting_fetch,
    write,
)


class CommitFacts:
    """What becomes of offsets."""

    async def test_commit_and_resume(self, opened: Opens) -> None:
        """A new member goes on where the group has committed; what was read and not committed comes again."""
        async with opened() as bench:
            topic, group = await new_topic(bench), bench.name()
            await fill(bench, topic, 10)
            consumer = bench.consumer(group)
            consumer.subscribe([topic], Owner())
            assert values(await take(consumer, 10)) == numbers(10)
            consumer.commit({Partition(topic, 0): Commit(4)})
            await consumer.fetch(500, TURN)
            await consumer.close({})
            following = bench.consumer(group)
            following.subscribe([topic], Owner())
            assert values(await take(following, 6)) == numbers(10)[4:]

    async def test_metadata_goes_along(self, opened: Opens) -> None:
        """The next owner of a partition is told what was committed, its metadata to the last of 4,095 characters; a
        commit without metadata wipes it, and a partition never committed comes without anything."""
        async with opened() as bench:
            topic, group = await new_topic(bench, partitions=3), bench.name()
            names = [Partition(topic, number) for number in range(3)]
            await fill(bench, topic, 3, partitions=3)
            long = "".join(chr(33 + place % 94) for place in range(4095))
            for commits in ({names[0]: Commit(1, "one"), names[1]: Commit(1, "two")}, {names[1]: Commit(1)}):
                consumer, owner = bench.consumer(group), Owner()
                consumer.subscribe([topic], owner)
                await turn([consumer], lambda owner=owner: len(owner.found) == 3)  # type: ignore[misc]  # bound on purpose
                await consumer.close({names[0]: Commit(1, long), **commits})
            last, owner = bench.consumer(group), Owner()
            last.subscribe([topic], owner)
            await turn([last], lambda: len(owner.found) == 3)
            assert owner.found == {names[0]: Commit(1, long), names[1]: Commit(1), names[2]: None}
            known = {names[0]: Commit(1, long), names[1]: Commit(1)}
            assert await bench.cluster.commits(group, [topic, bench.name()]) == known

    async def test_commits_are_acknowledged(self, opened: Opens) -> None:
        """A member can see how far its own commits have come, and forgets it with the partition."""
        async with opened() as bench:
            topic, group = await new_topic(bench, partitions=2), bench.name()
            consumer, owner = bench.consumer(group), Owner()
            consumer.subscribe([topic], owner)
            await turn([consumer], lambda: len(owner.owned) == 2)
            names = sorted(owner.owned)
            assert consumer.committed(names) == {}
            consumer.commit({names[0]: Commit(0, "here")})
            await turn([consumer], lambda: consumer.committed(names) == {names[0]: 0})
            other, newcomer = bench.consumer(group), Owner()
            other.subscribe([topic], newcomer)
            await turn([consumer, other], lambda: len(newcomer.owned) == 1)
            assert set(consumer.committed(names)) <= owner.owned

    async def test_commit_is_soon(self, opened: Opens) -> None:
        """A commit that was asked for takes place with the fetches that follow."""
        async with opened() as bench:
            topic, group = await new_topic(bench), bench.name()
            await fill(bench, topic, 10)
            consumer = bench.consumer(group)
            consumer.subscribe([topic], Owner())
            await take(consumer, 10)
            assert await bench.cluster.committed(group, [topic]) == {}
            consumer.commit({Partition(topic, 0): Commit(4)})
            consumer.commit({Partition(topic, 0): Commit(6)})
            for _ in range(50):
                await consumer.fetch(500, TURN)
                if await bench.cluster.committed(group, [topic]):
                    break
            assert await bench.cluster.committed(group, [topic]) == {Partition(topic, 0): 6}
            assert await bench.cluster.lag(group, [topic]) == {Partition(topic, 0): 4}

    async def test_close_commits_for_certain(self, opened: Opens) -> None:
        """`close` returns when its offsets and those still asked for are committed; a second close changes nothing."""
        async with opened() as bench:
            topic, group = await new_topic(bench, partitions=2), bench.name()
            await fill(bench, topic, 20, partitions=2)
            consumer, owner = bench.consumer(group), Owner()
            consumer.subscribe([topic], owner)
            await take(consumer, 20)
            consumer.commit({Partition(topic, 0): Commit(5)})
            await consumer.close({Partition(topic, 1): Commit(7)})
            assert await bench.cluster.committed(group, [topic]) == {Partition(topic, 0): 5, Partition(topic, 1): 7}
            assert owner.was_revoked == [Partition(topic, 0), Partition(topic, 1)]
            await consumer.close({Partition(topic, 1): Commit(2)})
            assert await bench.cluster.committed(group, [topic]) == {Partition(topic, 0): 5, Partition(topic, 1): 7}
            assert list(await consumer.fetch(500, TURN)) == []

    async def test_close_before_anything(self, opened: Opens) -> None:
        """A consumer that never joined, or joined and never fetched, can be closed."""
        async with opened() as bench:
            topic, group = await new_topic(bench), bench.name()
            await bench.consumer(group).close({})
            consumer = bench.consumer(group)
            consumer.subscribe([topic], Owner())
            await consumer.close({Partition(topic, 0): Commit(1)})
            assert await bench.cluster.committed(group, [topic]) == {}

    async def test_close_while_a_fetch_waits(self, opened: Opens) -> None:
        """`close` ends a fetch that another task waits in, which returns nothing."""
        async with opened() as bench:
            consumer, owner = bench.consumer(bench.name()), Owner()
            consumer.subscribe([await new_topic(bench)], owner)
            await turn([consumer], lambda: bool(owner.owned))
            waiting = waiting_fetch(consumer)
            await asyncio.sleep(0.1)
            await consumer.close({})
            assert await asyncio.wait_for(waiting, 20) == []

    async def test_commit_of_what_is_not_owned(self, opened: Opens) -> None:
        """Offsets of partitions that the member does not own are not committed: the broker would take them."""
        async with opened() as bench:
            topic, other, group = await new_topic(bench), await new_topic(bench), bench.name()
            consumer, owner = bench.consumer(group), Owner()
            consumer.subscribe([topic], owner)
            await turn([consumer], lambda: bool(owner.owned))
            consumer.commit({Partition(other, 0): Commit(0), Partition(topic, 0): Commit(0)})
            await nothing(consumer)
            await consumer.close({Partition(other, 0): Commit(0)})
            assert await bench.cluster.committed(group, [topic, other]) == {Partition(topic, 0): 0}

    async def test_groups_do_not_share(self, opened: Opens) -> None:
        """Each group reads everything and has offsets of its own."""
        async with opened() as bench:
            topic = await new_topic(bench)
            await fill(bench, topic, 5)
            for offset in (2, 4):
                group = bench.name()
                consumer = bench.consumer(group)
                consumer.subscribe([topic], Owner())
                assert values(await take(consumer, 5)) == numbers(5)
                await consumer.close({Partition(topic, 0): Commit(offset)})
                assert await bench.cluster.committed(group, [topic]) == {Partition(topic, 0): offset}


class GroupFacts:
    """What members of one group see of each other."""

    async def test_members_share(self, opened: Opens) -> None:
        """Two members have half of the partitions each; with offsets said at the revocation nothing comes twice."""
        async with opened() as bench:
            topic, group = await new_topic(bench, partitions=4), bench.name()
            await fill(bench, topic, 40, partitions=4)
            first, alone = bench.consumer(group), Owner()
            first.subscribe([topic], alone)
            taken = await take(first, 40)
            alone.read(taken)
            second, newcomer = bench.consumer(group), Owner()
            second.subscribe([topic], newcomer)
            await turn([first, second], lambda: len(alone.owned) == len(newcomer.owned) == 2)
            assert not alone.owned & newcomer.owned
            assert set(alone.was_revoked) == newcomer.owned
            await fill(bench, topic, 40, partitions=4)
            more = [0, 0]
            while sum(more) < 40:
                for number, (consumer, owner) in enumerate(((first, alone), (second, newcomer))):
                    records = await consumer.fetch(500, TURN)
                    assert {Partition(one.topic, one.partition) for one in records} <= owner.owned
                    more[number] += len(records)
                    taken += records
            assert more == [20, 20]
            assert len({(one.partition, one.offset) for one in taken}) == len(taken) == 80

    async def test_revocation_commits(self, opened: Opens) -> None:
        """What `revoked` returns, and what still waited to be committed, is committed before the next owner begins."""
        async with opened() as bench:
            topic, group = await new_topic(bench, partitions=2), bench.name()
            await fill(bench, topic, 20, partitions=2)
            first, owner = bench.consumer(group), Owner()
            first.subscribe([topic], owner)
            await take(first, 20)
            owner.offsets = {Partition(topic, 0): Commit(6)}
            first.commit({Partition(topic, 1): Commit(8)})
            second, newcomer = bench.consumer(group), Owner()
            second.subscribe([topic], newcomer)
            taken = await turn([first, second], lambda: len(newcomer.owned) == 1)
            name = next(iter(newcomer.owned))
            expected = 6 if name.number == 0 else 8
            records = taken[1] or await take(second, 1)
            assert (records[0].partition, records[0].offset) == (name.number, expected)
            await first.close({})
            _, more = await turn([first, second], lambda: len(newcomer.owned) == 2)
            records = more or await take(second, 1)
            assert records[0].offset == 14 - expected
            assert owner.was_lost == newcomer.was_lost == []

    async def test_leaving_hands_over(self, opened: Opens) -> None:
        """When a member leaves, the others take its partitions and go on where it has committed."""
        async with opened() as bench:
            topic, group = await new_topic(bench, partitions=4), bench.name()
            consumers = [bench.consumer(group) for _ in range(2)]
            owners = [Owner(), Owner()]
            for consumer, owner in zip(consumers, owners, strict=True):
                consumer.subscribe([topic], owner)
            await turn(consumers, lambda: [len(owner.owned) for owner in owners] == [2, 2])
            await fill(bench, topic, 40, partitions=4)
            taken = await take(consumers[0], 20)
            owners[0].read(taken)
            await consumers[0].close(owners[0].offsets)
            rest = await take(consumers[1], 20)
            everything = {(number, offset) for number in range(4) for offset in range(10)}
            assert {(one.partition, one.offset) for one in taken + rest} == everything
            await turn([consumers[1]], lambda: len(owners[1].owned) == 4)
            await nothing(consumers[1])

    async def test_pause_ends_with_the_ownership(self, opened: Opens) -> None:
        """A partition that comes back after it was paused and given away flows again."""
        async with opened() as bench:
            topic, group = await new_topic(bench, partitions=2), bench.name()
            first, owner = bench.consumer(group), Owner()
            first.subscribe([topic], owner)
            await turn([first], lambda: len(owner.owned) == 2)
            first.pause([Partition(topic, 0), Partition(topic, 1)])
            await nothing(first, turns=1)
            second, newcomer = bench.consumer(group), Owner()
            second.subscribe([topic], newcomer)
            await turn([first, second], lambda: len(newcomer.owned) == 1)
            (moved,) = newcomer.owned
            await second.close({})
            await turn([first], lambda: len(owner.owned) == 2)
            await write(bench.producer(), [Outgoing(topic, None, b"v", partition=number) for number in (0, 1)])
            assert moved.number in {one.partition for one in await take(first, 1)}

    async def test_lost_never_commits(self, opened: Opens) -> None:
        """A member that did not fetch for too long hears of its loss, commits nothing for it, and joins again.

        It hears `revoked` where the group had asked for the partition before it gave the member up.
        """
        async with opened() as bench:
            topic, group = await new_topic(bench), bench.name()
            await fill(bench, topic, 10)
            sleeper, owner = bench.consumer(group, impatient=True), Owner()
            sleeper.subscribe([topic], owner)
            await take(sleeper, 10)
            other, watcher = bench.consumer(group), Owner()
            other.subscribe([topic], watcher)
            sleeper.commit({Partition(topic, 0): Commit(9)})
            owner.offsets = {Partition(topic, 0): Commit(9)}
            end = asyncio.get_running_loop().time() + PATIENCE * 10
            while not watcher.owned and asyncio.get_running_loop().time() < end:
                await other.fetch(1, TURN)
            assert watcher.owned == {Partition(topic, 0)}
            await turn([sleeper], lambda: bool(owner.was_lost or owner.was_revoked))
            assert owner.was_lost + owner.was_revoked == [Partition(topic, 0)]
            assert await bench.cluster.committed(group, [topic]) == {}
            await other.close({Partition(topic, 0): Commit(3)})
            records = await take(sleeper, 7)
            assert [one.offset for one in records] == list(range(3, 10))

    async def test_members_are_known_by_name(self, opened: Opens) -> None:
        """The group names those that have joined, as they are told themselves, and nobody who has left."""
        async with opened() as bench:
            topic, group = await new_topic(bench, partitions=2), bench.name()
            stays, leaves = bench.consumer(group), bench.consumer(group)
            assert stays.name() == ""
            owners = [Owner(), Owner()]
            for member, owner in zip((stays, leaves), owners, strict=True):
                member.subscribe([topic], owner)
            await turn([stays, leaves], lambda: bool(stays.name() and leaves.name() and all(o.owned for o in owners)))
            left = leaves.name()
            assert set(await bench.cluster.members(group)) == {stays.name(), left}
            await leaves.close({})
            await turn([stays], lambda: bool(stays.name()))
            assert list(await bench.cluster.members(group)) == [stays.name()]

    async def test_killed_member_is_missed(self, opened: Opens) -> None:
        """The partitions of a killed member move to the others after a while, from its last commit on."""
        async with opened() as bench:
            topic, group = await new_topic(bench, partitions=2), bench.name()
            await fill(bench, topic, 10, partitions=2)
            async with bench.doomed(group, topic) as doomed:
                survivor, owner = bench.consumer(group), Owner()
                (known,) = await bench.cluster.members(group)
                await doomed.kill()
                assert known in await bench.cluster.members(group)
                survivor.subscribe([topic], owner)
                await bench.missed()
                assert set(values(await take(survivor, 10))) == set(numbers(10))
                assert known not in await bench.cluster.members(group)
                assert len(owner.owned) == 2
