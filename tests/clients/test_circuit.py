"""Tests of pipeline/clients/circuit.py."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.clients.circuit import LONGEST, PROBE_SECONDS, SHORTEST, TRIPS, Circuit, GuardedModel
from pipeline.core.errors import Defer, Outcome, Reject, Retry
from pipeline.devkit.fakes import FakeModel
from tests.contracts.chat_model_contract import CALL

NOW = 1_800_000_000.0


class Watch:
    """A clock that is set by hand."""

    def __init__(self) -> None:
        self.now = NOW

    def __call__(self) -> float:
        return self.now


def down() -> Retry:
    """Make the failure of a provider that is down."""
    return Retry("the provider answered 503", code="server_error")


def tripped() -> Circuit:
    """Make a circuit that has just opened."""
    circuit = Circuit()
    for _ in range(TRIPS):
        circuit = circuit.fail(NOW, "503")
    return circuit


def test_a_closed_circuit_lets_everything_through() -> None:
    """Nothing is held, and asking changes nothing."""
    assert Circuit().ask(NOW) == (Circuit(), None)


def test_failures_in_a_row_open_it() -> None:
    """Fewer than enough do not; a success in between starts the count anew."""
    circuit = Circuit()
    for _ in range(TRIPS - 1):
        circuit = circuit.fail(NOW, "503")
    assert not circuit.tripped
    assert not circuit.succeed().fail(NOW, "503").tripped
    assert circuit.fail(NOW, "503").tripped


def test_an_open_circuit_says_until_when() -> None:
    """Calls are refused with the reason and the time of the next look."""
    circuit, refused = tripped().ask(NOW + SHORTEST - 1)
    assert circuit == tripped()
    assert refused is not None
    assert (refused.until, refused.code) == (NOW + SHORTEST, "circuit_open")
    assert "503" in refused.reason


def test_one_call_at_a_time_looks_for_life() -> None:
    """When the time is over one call goes through, and the next one only some seconds later."""
    circuit, first = tripped().ask(NOW + SHORTEST)
    same, second = circuit.ask(NOW + SHORTEST)
    _, third = same.ask(NOW + SHORTEST + PROBE_SECONDS)
    assert first is None
    assert second is not None
    assert second.until == NOW + SHORTEST + PROBE_SECONDS
    assert third is None


def test_a_success_closes_it() -> None:
    """One answer is proof enough."""
    assert tripped().succeed().ask(NOW) == (Circuit(), None)


def test_a_long_outage_is_asked_about_less_often() -> None:
    """The rest grows with the outage, up to a limit."""
    minute = tripped().fail(NOW + 60, "503")
    day = tripped().fail(NOW + 86_400, "503")
    assert (minute.until, day.until) == (NOW + 120, NOW + 86_400 + LONGEST)


def test_late_failures_of_calls_in_flight_do_not_add_up() -> None:
    """A hundred calls that fail together open the circuit for as long as one."""
    circuit = tripped()
    for _ in range(100):
        circuit = circuit.fail(NOW, "503")
    assert circuit.until == tripped().until


def test_a_hold_opens_it_at_once() -> None:
    """A spent quota needs no second opinion; the longer of two holds counts."""
    circuit = Circuit().hold(NOW, NOW + 60, "quota").hold(NOW, NOW + 30, "quota")
    assert circuit.tripped
    assert circuit.until == NOW + 60


@given(st.lists(st.tuples(st.sampled_from(["ask", "fail", "succeed", "hold"]), st.floats(0, 600))))
def test_it_never_refuses_for_longer_than_it_may(steps: Sequence[tuple[str, float]]) -> None:
    """After any history, a refusal's time lies ahead, and not too far; waiting that long lets a call through."""
    circuit, now = Circuit(), NOW
    for step, seconds in steps:
        now += seconds
        if step == "fail":
            circuit = circuit.fail(now, "503")
        elif step == "hold":
            circuit = circuit.hold(now, now + 60, "quota")
        elif step == "succeed":
            circuit = circuit.succeed()
        else:
            circuit, refused = circuit.ask(now)
            if refused is not None:
                assert now < refused.until <= now + LONGEST
                assert circuit.ask(refused.until)[1] is None


async def refusal(model: GuardedModel) -> Outcome:
    """Return how a call is refused."""
    with pytest.raises(Outcome) as raised:
        await model.complete(CALL)
    return raised.value


async def test_a_held_provider_is_not_called() -> None:
    """After a spent quota, other calls are deferred without a call, until one finds out."""
    inner, watch = FakeModel(), Watch()
    model = GuardedModel(inner, watch)
    inner.troubles.append(Defer("the quota is spent", until=NOW + 60, code="insufficient_quota"))
    assert (await refusal(model)).code == "insufficient_quota"
    held = await refusal(model)
    assert isinstance(held, Defer)
    assert (held.code, held.until, len(inner.calls)) == ("circuit_open", NOW + 60, 1)
    watch.now += 60
    assert (await model.complete(CALL)).text
    assert (await model.complete(CALL)).text


async def test_an_outage_costs_no_attempts() -> None:
    """Once it is plain that the provider is down, failing calls are deferred; before that each is an attempt."""
    inner = FakeModel()
    model = GuardedModel(inner, Watch())
    inner.troubles.extend(down() for _ in range(TRIPS + 20))
    ends = await asyncio.gather(*(model.complete(CALL) for _ in range(TRIPS + 20)), return_exceptions=True)
    assert [type(end) for end in ends] == [Retry] * (TRIPS - 1) + [Defer] * 21


async def test_a_failing_probe_is_an_attempt() -> None:
    """The call that looks for life may itself be what breaks the provider, so it cannot be deferred for ever."""
    inner, watch = FakeModel(), Watch()
    model = GuardedModel(inner, watch)
    inner.troubles.extend(down() for _ in range(TRIPS + 1))
    for _ in range(TRIPS):
        await refusal(model)
    watch.now += SHORTEST
    assert isinstance(await refusal(model), Retry)
    assert isinstance(await refusal(model), Defer)


@pytest.mark.parametrize(
    "trouble", [Reject("malformed"), Retry("odd", code="empty_answer"), Defer("busy", until=NOW, code="rate_limited")]
)
async def test_what_concerns_one_call_holds_nobody_else(trouble: Outcome) -> None:
    """A malformed request, a rate limit and the like never open the circuit, however often."""
    inner = FakeModel()
    model = GuardedModel(inner, Watch())
    inner.troubles.extend([trouble] * (2 * TRIPS))
    for _ in range(2 * TRIPS):
        assert await refusal(model) is trouble
    assert (await model.complete(CALL)).text
