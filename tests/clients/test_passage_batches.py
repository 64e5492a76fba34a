"""Tests of pipeline/clients/passage_batches.py: what is gathered, and what is nobody else's business."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import pytest

from pipeline.clients.passage_batches import MOST, SECONDS, Batches, Turns

pytestmark = pytest.mark.virtual


class Sent:
    """Answers numbers with their doubles, after a while; `batches` is what was sent, and when."""

    def __init__(self, seconds: float = 0.0) -> None:
        self.batches: list[tuple[float, list[int]]] = []
        self.seconds = seconds

    def gather(self) -> Batches[int, int]:
        return Batches(self.send, abs, lambda error: isinstance(error, ValueError))

    async def send(self, items: Sequence[int]) -> Sequence[int]:
        self.batches.append((asyncio.get_running_loop().time(), list(items)))
        await asyncio.sleep(self.seconds)
        if any(item < -1 for item in items):
            raise ValueError("refused")
        if -1 in items:
            raise OSError("away")
        return [2 * item for item in items]


async def test_calls_of_one_moment_share_a_request() -> None:
    """Each gets its own answer, and nobody waits for somebody who does not come."""
    sent, before = Sent(), asyncio.get_running_loop().time()
    batches = sent.gather()
    assert await asyncio.gather(*map(batches.add, (1, 2, 3))) == [2, 4, 6]
    assert sent.batches == [(before, [1, 2, 3])]


async def test_a_full_batch_is_sent_at_once() -> None:
    """A request has no more than MOST points before its last item is added, so at most twice as many."""
    sent = Sent()
    await asyncio.gather(*map(sent.gather().add, (MOST - 1, MOST, 5, MOST - 5, 7)))
    assert [items for _, items in sent.batches] == [[MOST - 1, MOST], [5, MOST - 5], [7]]


async def test_who_comes_meanwhile_waits_no_longer_than_the_time() -> None:
    """While a request is under way others gather, until it is done or 20 ms have passed."""
    sent = Sent(seconds=5.0)
    batches, start = sent.gather(), asyncio.get_running_loop().time()
    calls = [asyncio.create_task(batches.add(1))]
    await asyncio.sleep(0.5)
    calls += [asyncio.create_task(batches.add(number)) for number in (2, 3)]
    await asyncio.gather(*calls)
    assert [(round(at - start, 3), items) for at, items in sent.batches] == [(0.0, [1]), (0.5 + SECONDS, [2, 3])]


async def test_what_gathered_goes_when_the_way_is_free() -> None:
    """A request that is done sooner than 20 ms lets the next go at once."""
    sent = Sent(seconds=0.005)
    batches, start = sent.gather(), asyncio.get_running_loop().time()
    first = asyncio.create_task(batches.add(1))
    await asyncio.sleep(0.001)
    await asyncio.gather(first, batches.add(2), batches.add(3))
    assert [(round(at - start, 3), items) for at, items in sent.batches] == [(0.0, [1]), (0.005, [2, 3])]


async def test_a_failure_is_that_of_its_batch() -> None:
    """All callers of a request that failed hear of it, and nobody else."""
    batches = Sent().gather()
    answers = await asyncio.gather(batches.add(MOST), batches.add(-1), batches.add(2), return_exceptions=True)
    assert answers[0] == 2 * MOST
    assert [str(answer) for answer in answers[1:]] == ["away", "away"]


async def test_a_request_that_is_refused_is_sent_in_parts() -> None:
    """One item that is wrong does not spoil the others."""
    batches = Sent().gather()
    answers = await asyncio.gather(batches.add(1), batches.add(-2), batches.add(3), return_exceptions=True)
    assert [str(answer) for answer in answers] == ["2", "refused", "6"]


async def test_who_gives_up_takes_only_his_own_along() -> None:
    """Before the request is sent his item is left out, afterwards it is carried out; the others get their answers."""
    sent = Sent(seconds=1.0)
    batches = sent.gather()
    calls = [asyncio.create_task(batches.add(number)) for number in (1, 2)]
    await asyncio.sleep(0.5)
    calls[0].cancel()
    late = [asyncio.create_task(batches.add(number)) for number in (3, 4)]
    await asyncio.sleep(0)
    late[0].cancel()
    answers = await asyncio.gather(*calls, *late, return_exceptions=True)
    assert [isinstance(answer, asyncio.CancelledError) for answer in answers] == [True, False, True, False]
    assert answers[1::2] == [4, 8]
    assert [items for _, items in sent.batches] == [[1, 2], [4]]


async def test_draining_waits_for_what_is_under_way() -> None:
    """A client may be closed afterwards."""
    sent = Sent(seconds=3.0)
    batches, start = sent.gather(), asyncio.get_running_loop().time()
    call = asyncio.create_task(batches.add(1))
    await asyncio.sleep(0.1)
    call.cancel()
    await batches.drain()
    assert asyncio.get_running_loop().time() - start == pytest.approx(3.0)


async def _turns(turns: Turns, order: list[str], name: str, height: int | None) -> None:
    async with turns.turn("document", height):
        order.append(name)
        await asyncio.sleep(1)


async def test_the_newest_goes_first() -> None:
    """Of those that wait for one document the highest version is next; those that need its text come last."""
    turns, order = Turns(), list[str]()
    heights = {"1st": 1, "keep": None, "v2": 2, "v4": 4, "keep again": None, "v3": 3}
    await asyncio.gather(*(_turns(turns, order, name, height) for name, height in heights.items()))
    assert order == ["1st", "v4", "v3", "v2", "keep", "keep again"]


async def test_other_documents_do_not_wait() -> None:
    """Turns are taken by name."""
    turns, start = Turns(), asyncio.get_running_loop().time()
    async with turns.turn("one", 1), turns.turn("other", 1):
        assert asyncio.get_running_loop().time() == start


async def test_a_turn_that_is_given_up_is_passed_on() -> None:
    """Whoever is cancelled while waiting, or at the very moment of his turn, stops nobody."""
    turns, order, held = Turns(), list[str](), asyncio.Event()

    async def hold() -> None:
        async with turns.turn("document", None):
            await held.wait()
        calls[1].cancel()  # its turn has just come, and it has not gone on yet

    holder = asyncio.create_task(hold())
    await asyncio.sleep(0.1)
    calls = [asyncio.create_task(_turns(turns, order, name, None)) for name in ("waiting", "called", "next")]
    await asyncio.sleep(0.1)
    calls[0].cancel()
    held.set()
    await holder
    await asyncio.gather(*calls, return_exceptions=True)
    assert order == ["next"]
