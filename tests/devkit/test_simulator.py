"""The simulator as its clients see it: through the real openai library, and over plain HTTP."""

import asyncio
import json
from contextlib import AsyncExitStack
from typing import Any

import aiohttp
import openai
import pytest

from pipeline.devkit.listen import PortInUse
from pipeline.devkit.simulator import (
    Fault,
    FaultKind,
    Latency,
    SimulatorClock,
    SimulatorConfig,
    overlapping_keys,
    simulator,
)
from pipeline.devkit.simulator_prompt import Passage, Prompt, render_prompt
from tests.devkit.asking import ANSWER, QUESTION, ask, connected, streamed, text_of

pytestmark = pytest.mark.local


async def test_the_answer_comes_from_the_passages() -> None:
    """A completion has the provider's shape: id, usage, finish reason, and the quoted answer with its citation."""
    async with simulator() as sim, connected(sim) as client:
        answer = await ask(client)
    choice, usage = answer.choices[0], answer.usage
    assert (choice.message.content, choice.finish_reason, choice.message.refusal) == (ANSWER, "stop", None)
    assert usage is not None
    assert (usage.prompt_tokens, usage.completion_tokens) == (6 + (len(QUESTION) + 3) // 4, (len(ANSWER) + 3) // 4)
    assert usage.total_tokens == usage.prompt_tokens + usage.completion_tokens
    assert answer.id.startswith("chatcmpl-")
    assert (answer.object, answer.model) == ("chat.completion", "small")


async def test_a_stream_carries_the_same_answer_and_its_usage_last() -> None:
    """Chunks add up to the answer; the last one before the end has the usage and no choices, if it was asked for."""
    async with simulator() as sim, connected(sim) as client:
        chunks = await streamed(client, stream_options={"include_usage": True})
        without = await streamed(client)
    assert text_of(chunks) == text_of(without) == ANSWER
    assert [chunk.choices[0].finish_reason for chunk in chunks[:-1] if chunk.choices[0].finish_reason] == ["stop"]
    assert chunks[-1].choices == []
    assert chunks[-1].usage is not None
    assert chunks[-1].usage.completion_tokens == (len(ANSWER) + 3) // 4
    assert all(chunk.usage is None for chunk in (*chunks[:-1], *without))


@pytest.mark.parametrize("limit", [{"max_tokens": 3}, {"max_completion_tokens": 3}])
async def test_an_answer_over_the_limit_is_cut(limit: dict[str, Any]) -> None:
    """With three tokens there is room for twelve characters; the finish reason tells, and so does the journal."""
    async with simulator() as sim, connected(sim) as client:
        answer = await ask(client, **limit)
        assert [call.outcome for call in sim.journal.calls] == ["length"]
    assert (answer.choices[0].message.content, answer.choices[0].finish_reason) == (ANSWER[:12], "length")
    assert answer.usage is not None
    assert answer.usage.completion_tokens == 3


async def test_a_json_answer_is_an_object() -> None:
    """With a response format, the content is JSON with the answer and its citations."""
    schema = {"type": "json_schema", "json_schema": {"name": "answer", "schema": {"type": "object"}}}
    async with simulator() as sim, connected(sim) as client:
        answer = await ask(client, response_format=schema)
    content = answer.choices[0].message.content
    assert content is not None
    assert json.loads(content) == {"answer": "Goods may be returned within 30 days.", "citations": [1]}


@pytest.mark.parametrize("stream", [False, True])
async def test_text_that_is_no_unicode_is_answered(stream: bool) -> None:
    """JSON can carry half a surrogate pair; it comes back as it went in."""
    prompt = render_prompt(Prompt("Which door?", (Passage(1, "This door \ud83d."),)))
    body = {"model": "small", "messages": [{"role": "user", "content": prompt}], "stream": stream}
    async with simulator() as sim, aiohttp.ClientSession(raise_for_status=True) as http:
        answer = await http.post(f"{sim.base_url}/chat/completions", data=json.dumps(body))
        assert "\\ud83d" in await answer.text()


async def test_every_answer_has_the_providers_headers() -> None:
    """A request id and the state of both rate limits come with answers and with errors."""
    names = {"x-request-id", "openai-processing-ms"} | {
        f"x-ratelimit-{what}-{of}" for what in ("limit", "remaining", "reset") for of in ("requests", "tokens")
    }
    async with simulator() as sim, connected(sim) as client:
        sim.faults.add(Fault(kind=FaultKind.SERVER_ERROR, after=1))
        messages: list[Any] = [{"role": "user", "content": "Why?"}]
        answer = await client.chat.completions.with_raw_response.create(model="small", messages=messages)
        with pytest.raises(openai.InternalServerError) as caught:
            await ask(client)
    assert names <= set(answer.headers)
    assert names <= set(caught.value.response.headers)
    assert caught.value.request_id is not None
    assert caught.value.request_id.startswith("req_")


async def test_a_caller_that_leaves_is_noted() -> None:
    """A client that hangs up ends its call: it leaves the count of running calls, and its outcome says so."""
    async with simulator() as sim, connected(sim) as client:
        sim.faults.add(Fault(kind=FaultKind.SLOW, seconds=600))
        asking = asyncio.create_task(ask(client))
        while not sim.journal.in_flight:
            await asyncio.sleep(0.001)
        asking.cancel()
        while sim.journal.in_flight:
            await asyncio.sleep(0.001)
        assert [(call.status, call.outcome) for call in sim.journal.calls] == [(499, "abandoned")]


async def test_a_slow_call_does_not_hold_up_the_end() -> None:
    """The block ends although a call would still take ten minutes; its caller gets a connection error."""
    async with AsyncExitStack() as stack:
        async with simulator() as sim:
            client = await stack.enter_async_context(connected(sim))
            sim.faults.add(Fault(kind=FaultKind.SLOW, seconds=600))
            asking = asyncio.create_task(ask(client))
            while not sim.journal.in_flight:
                await asyncio.sleep(0.001)
        with pytest.raises(openai.APIConnectionError):
            await asking


async def test_over_its_capacity_it_refuses() -> None:
    """With room for two, the third call at once gets a 429 with a time; all three count as in flight."""
    async with simulator(SimulatorConfig(capacity=2)) as sim, connected(sim) as client:
        sim.faults.add(Fault(kind=FaultKind.SLOW, seconds=600, times=2))
        waiting = [asyncio.create_task(ask(client)) for _ in range(2)]
        while sim.journal.in_flight < 2:
            await asyncio.sleep(0.001)
        with pytest.raises(openai.RateLimitError) as caught:
            await ask(client)
        assert sim.journal.max_in_flight == 3
        for task in waiting:
            task.cancel()
    assert caught.value.response.headers["retry-after"] == "1"


async def test_over_its_rate_it_refuses_until_time_has_passed() -> None:
    """One request a minute: the second is refused with the wait in its headers, and is served after it."""
    now = [0.0]
    clock = SimulatorClock(monotonic=lambda: now[0])
    async with simulator(SimulatorConfig(requests_per_minute=1), clock) as sim, connected(sim) as client:
        await ask(client)
        now[0] = 15.5
        with pytest.raises(openai.RateLimitError) as caught:
            await ask(client)
        now[0] = 60.0
        await ask(client)
    headers = caught.value.response.headers
    assert (headers["retry-after"], headers["retry-after-ms"]) == ("45", "44500")


async def test_wrong_keys_models_and_sizes_are_refused() -> None:
    """With a key, models and a context configured, calls outside of them fail as with the provider."""
    config = SimulatorConfig(api_key="right", models=("small",), context_tokens=1000)
    async with simulator(config) as sim, connected(sim, "wrong") as stranger, connected(sim, "right") as client:
        with pytest.raises(openai.AuthenticationError):
            await ask(stranger)
        with pytest.raises(openai.AuthenticationError):
            await stranger.models.list()
        with pytest.raises(openai.NotFoundError, match="'large' does not exist"):
            await client.chat.completions.create(model="large", messages=[{"role": "user", "content": "Why?"}])
        with pytest.raises(openai.BadRequestError) as caught:
            await ask(client, max_tokens=990)
        with pytest.raises(openai.BadRequestError, match="temperature"):
            await ask(client, temperature=9)
        assert [model.id async for model in client.models.list()] == ["small"]
        outcomes = ["invalid_api_key", "model_not_found", "context_length_exceeded", "invalid_type"]
        assert [call.outcome for call in sim.journal.calls] == outcomes
    assert caught.value.code == "context_length_exceeded"
    assert "right" not in repr(config)


async def test_without_configured_models_all_are_known() -> None:
    """Any model is answered; the list shows those that were asked."""
    async with simulator() as sim, connected(sim) as client:
        assert [model.id async for model in client.models.list()] == ["simulator"]
        await ask(client)
        assert [model.id async for model in client.models.list()] == ["small"]


async def test_the_journal_names_calls_by_what_the_caller_says() -> None:
    """The header comes first, then the user, then the metadata; equal inputs have equal hashes."""
    async with simulator() as sim, connected(sim) as client:
        await ask(client, user="u", extra_headers={"X-Client-Request-Id": "h"})
        await ask(client, user="u", metadata={"key": "k"})
        await ask(client, metadata={"key": "k"})
        await ask(client, question="Why?")
        calls = sim.journal.calls
    assert [(call.key, call.asked.user) for call in calls] == [("h", "u"), ("u", "u"), ("k", ""), ("", "")]
    assert [call.asked.question[:8] for call in calls] == ["For how "] * 3 + ["Why?"]
    assert len({call.input_hash for call in calls[:3]}) == 1
    assert calls[3].input_hash != calls[0].input_hash


async def test_the_journal_shows_order_and_concurrency() -> None:
    """Fifty calls, five keys, one at a time for each: never more than five in flight, and no key overlaps itself."""

    async def one_by_one(client: openai.AsyncOpenAI, key: str) -> None:
        for _ in range(10):
            await ask(client, user=key)

    async with simulator(SimulatorConfig(latency=Latency(median=0.001))) as sim, connected(sim) as client:
        async with asyncio.TaskGroup() as tasks:
            for key in "abcde":
                tasks.create_task(one_by_one(client, key))
        assert len(sim.journal.calls) == 50
        assert 1 < sim.journal.max_in_flight <= 5
        assert overlapping_keys(sim.journal.calls) == ()


async def test_other_processes_read_the_journal_and_reset_it() -> None:
    """`/journal` and `/journal/events` are JSON lines; a reset empties both."""
    async with simulator() as sim, connected(sim) as client, aiohttp.ClientSession() as http:
        await ask(client, user="u")
        root = sim.base_url.removesuffix("/v1")
        calls = [json.loads(line) for line in await _get_lines(http, f"{root}/journal")]
        events = [json.loads(line) for line in await _get_lines(http, f"{root}/journal/events")]
        assert calls == [call.record() for call in sim.journal.calls]
        assert [(event["what"], event["index"], event["key"]) for event in events] == [
            ("start", 0, "u"),
            ("end", 0, "u"),
        ]
        assert (await http.post(f"{root}/journal/reset")).status == 204
        assert await _get_lines(http, f"{root}/journal") == []


async def _get_lines(http: aiohttp.ClientSession, url: str) -> list[str]:
    async with http.get(url) as answer:
        return (await answer.text()).splitlines()


async def test_other_processes_order_faults() -> None:
    """`/faults` takes one or several, shows them with their counts, refuses nonsense, and clears them."""
    async with simulator() as sim, connected(sim) as client, aiohttp.ClientSession() as http:
        url = f"{sim.base_url.removesuffix('/v1')}/faults"
        assert (await http.post(url, json={"kind": "empty"})).status == 200
        assert (await http.post(url, json=[{"kind": "cut", "match": "x"}, {"kind": "slow"}])).status == 200
        wrong = await http.post(url, json={"kind": "flood"})
        assert (wrong.status, "kind" in (await wrong.json())["error"]["message"]) == (400, True)
        assert (await ask(client)).choices[0].message.content == ""
        shown = await (await http.get(url)).json()
        assert [(fault["kind"], fault["struck"]) for fault in shown] == [("empty", 1), ("cut", 0), ("slow", 0)]
        assert (await http.delete(url)).status == 204
        assert sim.faults.states == ()


async def test_a_port_in_use_is_one_sentence() -> None:
    """A fixed port that is taken is an error that names the server and the port."""
    async with simulator() as sim:
        port = int(sim.base_url.split(":")[2].removesuffix("/v1"))
        with pytest.raises(PortInUse, match=rf"simulator cannot listen on 127\.0\.0\.1:{port}"):
            async with simulator(SimulatorConfig(port=port)):
                pass


def test_latencies_repeat_and_spread() -> None:
    """The same seed gives the same latencies, around the median; without a spread all are the median."""
    one = [Latency(median=2.0, sigma=0.5, seed=1).first(index) for index in range(1000)]
    assert one == [Latency(median=2.0, sigma=0.5, seed=1).first(index) for index in range(1000)]
    assert sorted(one)[500] == pytest.approx(2.0, rel=0.1)
    assert 30 < sum(latency > 2.0 * 2.28 for latency in one) < 70
    assert {Latency(median=2.0).first(index) for index in range(9)} == {2.0}
