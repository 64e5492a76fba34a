"""Blocking calls that may never come back."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator

import pytest

from pipeline.broker import calls
from pipeline.broker.calls import Calls, Unanswered

MANY = 30.0


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever waits gives up at once."""
    monkeypatch.setattr(calls, "PIECE_SECONDS", 0.005)


@pytest.fixture
def made() -> Iterator[Calls]:
    """Calls, whose thread ends with the test."""
    made = Calls("calls of a test")
    yield made
    made.end(lambda: None)
    assert made.join(MANY)


def go_on() -> None:
    """Do not mind waiting."""


def test_an_answer(made: Calls) -> None:
    """What a call returns is returned; calls are made one after another on the same thread, which is not ours."""
    idents = {made.make("ident", threading.get_ident, go_on) for _ in range(3)}
    assert len(idents) == 1
    assert threading.get_ident() not in idents


def test_an_error(made: Calls) -> None:
    """What a call raises is raised, also where it looks like the end of a wait; the next one is made all the same."""

    def fail() -> None:
        raise TimeoutError("its own")

    with pytest.raises(TimeoutError, match="its own"):
        made.make("fail", fail, go_on)
    assert made.make("answer", lambda: 1, go_on) == 1


@pytest.mark.usefixtures("impatient")
def test_a_call_that_hangs(made: Calls) -> None:
    """It is given up with its name, and every later call at once; when it has come back calls are made again."""
    release, asked = threading.Event(), list[int]()
    with pytest.raises(Unanswered, match="hang did not come back within"):
        made.make("hang", lambda: release.wait(MANY), lambda: asked.append(1))
    assert len(asked) == calls.PIECES
    with pytest.raises(Unanswered, match="next has to wait for an earlier call"):
        made.make("next", lambda: None, go_on)
    release.set()
    answer = 0
    while not answer:
        with contextlib.suppress(Unanswered):
            answer = made.make("turn", lambda: 1, go_on)
    assert answer == 1


@pytest.mark.usefixtures("impatient")
def test_who_waits_may_lose_interest(made: Calls) -> None:
    """What is raised between two pieces of the wait ends it."""
    release = threading.Event()

    def closing() -> None:
        raise InterruptedError

    with pytest.raises(InterruptedError):
        made.make("hang", lambda: release.wait(MANY), closing)
    release.set()


@pytest.mark.usefixtures("impatient")
def test_the_last_call_waits_for_the_one_that_hangs() -> None:
    """A client is not closed while a call of it is under way; nobody has to wait for that."""
    release, order, made = threading.Event(), list[str](), Calls("calls of a test")

    def hang() -> None:
        release.wait(MANY)
        order.append("hung")

    with pytest.raises(Unanswered):
        made.make("hang", hang, go_on)
    made.end(lambda: order.append("closed"))
    assert not made.join(0.0)
    release.set()
    assert made.join(MANY)
    assert order == ["hung", "closed"]
