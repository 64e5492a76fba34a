"""Every kind of failure, as the real openai library meets it."""

import json

import openai
import pytest

from pipeline.devkit.simulator import Fault, FaultKind, Latency, SimulatorClock, SimulatorConfig, simulator
from tests.devkit.asking import ANSWER, ask, connected, streamed, text_of

pytestmark = pytest.mark.local


@pytest.mark.parametrize(
    "kind, error, status, code",
    [
        (FaultKind.RATE_LIMIT, openai.RateLimitError, 429, "rate_limit_exceeded"),
        (FaultKind.INSUFFICIENT_QUOTA, openai.RateLimitError, 429, "insufficient_quota"),
        (FaultKind.SERVER_ERROR, openai.InternalServerError, 500, None),
        (FaultKind.UNAVAILABLE, openai.InternalServerError, 503, None),
        (FaultKind.UNAUTHORIZED, openai.AuthenticationError, 401, "invalid_api_key"),
        (FaultKind.FORBIDDEN, openai.PermissionDeniedError, 403, None),
        (FaultKind.CONTEXT_LENGTH, openai.BadRequestError, 400, "context_length_exceeded"),
    ],
)
@pytest.mark.parametrize("stream", [False, True])
async def test_an_error_fault_raises_what_the_library_knows(
    kind: FaultKind, error: type[openai.APIStatusError], status: int, code: str | None, stream: bool
) -> None:
    """Each error kind arrives as the library's own exception, streamed or not, and the next call is well again."""
    async with simulator() as sim, connected(sim) as client:
        sim.faults.add(Fault(kind=kind))
        with pytest.raises(error) as caught:
            await (streamed(client) if stream else ask(client))
        assert (await ask(client)).choices[0].message.content == ANSWER
        assert [(call.status, call.outcome) for call in sim.journal.calls] == [(status, kind.value), (200, "ok")]
    assert (caught.value.status_code, caught.value.code) == (status, code)


async def test_a_rate_limit_says_when_to_come_back() -> None:
    """The time of a 429 is in its headers, in the form that was asked for."""
    async with simulator() as sim, connected(sim) as client:
        sim.faults.add(Fault(kind=FaultKind.RATE_LIMIT, retry_after=12))
        with pytest.raises(openai.RateLimitError) as caught:
            await ask(client)
    assert caught.value.response.headers["retry-after"] == "12"


async def test_a_refusal_has_no_content() -> None:
    """A refused answer carries the refusal and null as content; a stream carries it in its own field."""
    async with simulator() as sim, connected(sim) as client:
        sim.faults.add(Fault(kind=FaultKind.REFUSAL, times=2))
        answer, chunks = await ask(client), await streamed(client)
    message = answer.choices[0].message
    assert message.content is None
    assert message.refusal == "".join(choice.delta.refusal or "" for chunk in chunks for choice in chunk.choices)
    assert message.refusal
    assert text_of(chunks) == ""


@pytest.mark.parametrize("kind, finish", [(FaultKind.CONTENT_FILTER, "content_filter"), (FaultKind.EMPTY, "stop")])
async def test_filtered_and_empty_answers_have_notext_of(kind: FaultKind, finish: str) -> None:
    """The content is empty, and the finish reason tells a filter from an empty answer."""
    async with simulator() as sim, connected(sim) as client:
        sim.faults.add(Fault(kind=kind, times=2))
        answer, chunks = await ask(client), await streamed(client)
    assert (answer.choices[0].message.content, answer.choices[0].finish_reason) == ("", finish)
    assert (text_of(chunks), chunks[-1].choices[0].finish_reason) == ("", finish)


async def test_missing_usage_is_missing() -> None:
    """Neither an answer nor a stream carries usage then, while the journal knows what was produced."""
    async with simulator() as sim, connected(sim) as client:
        sim.faults.add(Fault(kind=FaultKind.NO_USAGE, times=2))
        answer = await ask(client)
        chunks = await streamed(client, stream_options={"include_usage": True})
        assert [call.usage.completion_tokens for call in sim.journal.calls] == [(len(ANSWER) + 3) // 4] * 2
    assert answer.usage is None
    assert (text_of(chunks), [chunk.usage for chunk in chunks if chunk.usage]) == (ANSWER, [])


@pytest.mark.parametrize("stream", [False, True])
async def test_a_body_that_is_not_json_breaks_the_parser(stream: bool) -> None:
    """A 200 with half a JSON document is an error of the JSON parser, not of the library."""
    async with simulator() as sim, connected(sim) as client:
        sim.faults.add(Fault(kind=FaultKind.NOT_JSON))
        with pytest.raises(json.JSONDecodeError):
            await (streamed(client) if stream else ask(client))


async def test_a_page_of_a_proxy_arrives_astext_of() -> None:
    """A 200 with HTML passes the library as a bare string."""
    async with simulator() as sim, connected(sim) as client:
        sim.faults.add(Fault(kind=FaultKind.HTML, times=2))
        answer: object = await client.chat.completions.create(model="m", messages=[{"role": "user", "content": "Why?"}])
        chunks = await streamed(client)
    assert isinstance(answer, str)
    assert chunks == []


async def test_json_of_a_wrong_shape_has_no_choices() -> None:
    """A 200 with other JSON passes the library, and has no choices."""
    async with simulator() as sim, connected(sim) as client:
        sim.faults.add(Fault(kind=FaultKind.WRONG_SHAPE, times=2))
        answer, chunks = await ask(client), await streamed(client)
    assert [answer.choices, *(chunk.choices for chunk in chunks)] == [None, None]


@pytest.mark.parametrize("stream", [False, True])
async def test_a_connection_cut_in_the_body_is_a_connection_error(stream: bool) -> None:
    """Half a body, streamed or not, ends in a connection error, while the answer had been produced."""
    async with simulator() as sim, connected(sim) as client:
        sim.faults.add(Fault(kind=FaultKind.CUT))
        with pytest.raises(openai.APIConnectionError):
            await (streamed(client) if stream else ask(client))
        assert (await ask(client)).choices[0].message.content == ANSWER
        cut = sim.journal.calls[0]
    assert (cut.outcome, cut.usage.completion_tokens > 0) == ("cut", True)


async def test_a_slow_answer_is_right() -> None:
    """A slow call waits for its seconds, and then answers as ever."""
    naps: list[float] = []

    async def nap(seconds: float) -> None:
        naps.append(seconds)

    latency = Latency(median=2.0, per_token=0.5)
    async with simulator(SimulatorConfig(latency=latency), SimulatorClock(sleep=nap)) as sim, connected(sim) as client:
        sim.faults.add(Fault(kind=FaultKind.SLOW, seconds=30))
        answer, chunks = await ask(client), await streamed(client)
    assert answer.choices[0].message.content == text_of(chunks) == ANSWER
    tokens = (len(ANSWER) + 3) // 4
    assert naps == [32.0, 0.5 * tokens, 2.0, *[0.5] * (tokens + 2)]
