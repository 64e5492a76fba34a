"""The same event at another offset: it is answered already, as far as that can be known within bounds."""

from __future__ import annotations

import pytest

from pipeline.core import headers as h
from pipeline.core.errors import Fail
from pipeline.runtime import follow
from tests.runtime.following import calls, costly
from tests.runtime.world import Script, World


@pytest.mark.virtual
async def test_a_repetition_from_upstream_is_not_paid_again_and_a_new_run_is() -> None:
    """The same event at another offset is answered already, before and after a kill; a raised run is another one."""
    world = await World.make()
    first = await world.start(Script(), costly())
    world.put("a", headers={h.CE_ID: "event-1"})
    await world.until(world.texts)
    await world.settle(0.5)
    world.put("a", headers={h.CE_ID: "event-1"})
    await world.until(lambda: world.at() == 2)
    first.consumer.loses_commits = True
    world.put("b", headers={h.CE_ID: "event-2"})
    await world.until(lambda: len(world.texts()) == 2)
    await first.kill()
    world.put("b", headers={h.CE_ID: "event-2"})
    world.put("b", headers={h.CE_ID: "event-2", h.RUN: "1"})
    second = await world.start(Script(), costly())
    await world.until(lambda: world.at() == 5)
    assert (first.handler.texts, second.handler.texts) == (["a", "b"], ["b"])
    await world.stop()


@pytest.mark.virtual
async def test_a_repetition_is_settled_only_when_the_answer_is_acknowledged(monkeypatch: pytest.MonkeyPatch) -> None:
    """An answer that is on its way answers nobody: both records stay unsettled until the broker has it."""
    world = await World.make()
    run = await world.start(Script(), costly())
    send, held = run.producer.send, []
    monkeypatch.setattr(run.producer, "send", lambda *sending: held.append(sending))
    world.put("a", "a", key=None, headers={h.CE_ID: "event-1"})
    await world.until(lambda: run.handler.done == ["a"])
    await world.settle(4)
    assert not world.at()
    assert world.metric("window_records") == 2
    for sending in held:
        send(*sending)
    await world.until(lambda: world.at() == 2)
    assert run.handler.texts == ["a"]
    await world.stop()


@pytest.mark.virtual
@pytest.mark.parametrize("answer", [[], [Fail("refused")]])
@pytest.mark.parametrize("between, paid", [(9, 1), (10, 2)])
async def test_a_repetition_is_known_again_within_bounds(
    between: int, paid: int, answer: list[Exception], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The same event at another offset, taken by another worker: known while so few answers stand behind its own."""
    monkeypatch.setattr(follow, "LOOK_BACK", 10)
    world = await World.make()
    first = await world.start(Script(a=[*answer]), costly())
    world.put("a", key=None, headers={h.CE_ID: "event-a"})
    await world.settle()
    texts = [str(number) for number in range(between)]
    first.handler.answers.update({text: [*answer] for text in texts})
    world.put(*texts, key=None)
    await world.until(lambda: world.at() == between + 1)
    await world.settle(6)
    await first.stop()
    second = await world.start(Script(a=[*answer]), costly())
    await world.settle()
    world.put("a", key=None, headers={h.CE_ID: "event-a"})
    await world.until(lambda: world.at() == between + 2)
    assert calls(first.handler, second.handler)["a"] == paid
    await world.stop()
