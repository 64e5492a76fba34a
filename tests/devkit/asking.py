"""Asking the simulator through the real openai library."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import openai
from openai.types.chat import ChatCompletion, ChatCompletionChunk

from pipeline.devkit.simulator import Simulator
from pipeline.devkit.simulator_prompt import Passage, Prompt, render_prompt

_PASSAGES = (
    Passage(1, "Goods may be returned within 30 days. The office is in Ghent.", "handbook/returns"),
    Passage(2, "Lockers are green & blue. A locker stays open for two minutes.", "handbook/lockers"),
)
ANSWER = "Goods may be returned within 30 days. [1]"
QUESTION = render_prompt(Prompt("For how many days may goods be returned?", _PASSAGES))


@asynccontextmanager
async def connected(sim: Simulator, key: str = "any") -> AsyncIterator[openai.AsyncOpenAI]:
    async with openai.DefaultAioHttpClient(verify=False) as http:
        yield openai.AsyncOpenAI(base_url=sim.base_url, api_key=key, max_retries=0, http_client=http, timeout=20)


async def ask(client: openai.AsyncOpenAI, question: str = QUESTION, **more: Any) -> ChatCompletion:
    answer = await client.chat.completions.create(
        model="small", messages=[{"role": "user", "content": question}], **more
    )
    assert isinstance(answer, ChatCompletion)
    return answer


async def streamed(client: openai.AsyncOpenAI, **more: Any) -> list[ChatCompletionChunk]:
    messages: list[Any] = [{"role": "user", "content": QUESTION}]
    stream = await client.chat.completions.create(model="small", messages=messages, stream=True, **more)
    return [chunk async for chunk in stream]


def text_of(chunks: list[ChatCompletionChunk]) -> str:
    return "".join(choice.delta.content or "" for chunk in chunks for choice in chunk.choices)
