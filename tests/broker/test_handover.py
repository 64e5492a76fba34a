"""One thread that works for the loop."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from functools import partial

from pipeline.broker.handover import Handover


class Back:
    """Keeps what came back, and on which thread."""

    def __init__(self) -> None:
        """Keep nothing yet."""
        self.results: list[str | None] = []
        self.failures: list[Exception | None] = []
        self.threads: set[int] = set()

    def __call__(self, result: str | None, failure: Exception | None) -> None:
        """Keep one job's end."""
        self.results.append(result)
        self.failures.append(failure)
        self.threads.add(threading.get_ident())


async def test_jobs_come_back_on_the_loop() -> None:
    """A job runs on one other thread and its result, or its exception, comes back on the loop's."""
    back, ran_on = Back(), set[int]()
    handover: Handover[str] = Handover("test", back)

    def job() -> str:
        ran_on.add(threading.get_ident())
        return "done"

    def broken() -> str:
        raise ZeroDivisionError("broken")

    for work in (job, broken, job):
        handover.give(work)
        assert not handover.home
        await handover.returned()
    assert handover.home
    assert back.results == ["done", None, "done"]
    assert isinstance(back.failures[1], ZeroDivisionError)
    assert back.threads == {threading.get_ident()}
    assert len(ran_on) == 1
    assert not ran_on & back.threads
    handover.stop()


async def test_cancelled_wait() -> None:
    """Who waits for a job may be cancelled: the job still comes back, and the next one can wait for that."""
    back, free = Back(), threading.Event()
    handover: Handover[str] = Handover("test", back)
    handover.give(lambda: "done" if free.wait(20) else "late")
    waiting = asyncio.create_task(handover.returned())
    await asyncio.sleep(0)
    waiting.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await waiting
    assert back.results == []
    free.set()
    await handover.returned()
    assert back.results == ["done"]
    handover.stop()


async def test_told_before_the_job_is_back() -> None:
    """What a job tells the loop happens before the job comes back; from the loop itself it happens at once."""
    happened: list[str] = []
    handover: Handover[str] = Handover("test", lambda result, _: happened.append(result or ""))

    def job() -> str:
        handover.tell(lambda: happened.append("told"))
        return "back"

    handover.give(job)
    await handover.returned()
    handover.tell(lambda: happened.append("here"))
    assert happened == ["told", "back", "here"]
    handover.stop()


async def test_questions_to_the_loop() -> None:
    """A job can ask the loop and gets the answer, or the exception."""
    back = Back()
    handover: Handover[str] = Handover("test", back)
    loop_thread = threading.get_ident()

    def answer() -> str:
        return "yes" if threading.get_ident() == loop_thread else "no"

    def broken() -> str:
        raise ZeroDivisionError("broken")

    assert handover.ask(answer, 1.0) == "yes"
    for question in (answer, broken):
        handover.give(partial(handover.ask, question, 20.0))
        await handover.returned()
    assert back.results == ["yes", None]
    assert isinstance(back.failures[1], ZeroDivisionError)
    handover.stop()


async def test_loop_that_does_not_listen() -> None:
    """A question that the loop does not get to in time has no answer, and is never put later."""
    back, asked = Back(), list[str]()
    handover: Handover[str] = Handover("test", back)
    gave_up = threading.Event()

    def question() -> str:
        asked.append("asked")
        return "yes"

    def job() -> str:
        answer = handover.ask(question, 0.01)
        gave_up.set()
        return str(answer)

    handover.give(job)
    assert gave_up.wait(20)  # blocks the loop
    await handover.returned()
    assert back.results == ["None"]
    assert asked == []
    handover.stop()


def test_loop_that_has_ended() -> None:
    """A job that outlives its loop comes back to nobody, without an error."""
    free, done = threading.Event(), threading.Event()

    async def leave() -> None:
        handover: Handover[str] = Handover("test", Back())

        def job() -> str:
            free.wait(20)
            handover.tell(lambda: None)
            done.set()
            return "late"

        handover.give(job)
        handover.stop()

    asyncio.run(leave())
    free.set()
    assert done.wait(20)


async def test_answer_that_has_begun() -> None:
    """An answer that is under way when the time is over is waited for: half a revocation would be worse."""
    back, begun = Back(), threading.Event()
    handover: Handover[str] = Handover("test", back)

    def slow() -> str:
        begun.set()
        threading.Event().wait(0.2)
        return "in the end"

    handover.give(lambda: handover.ask(slow, 0.1))
    await handover.returned()
    assert begun.is_set()
    assert back.results == ["in the end"]
    handover.stop()
