"""Tests of pipeline/clients/embed_batches.py, in virtual time."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.clients.embed_batches import EmbeddingLimits, Gathered, TextRefused, fitted, shared
from pipeline.core.errors import Reject, Retry
from pipeline.core.index_ports import Embedding
from pipeline.core.limits import estimate_tokens

pytestmark = pytest.mark.virtual


class Provider:
    """Answers after a second with vectors of one number, the text's length, and a token for each character.

    It refuses requests with a text in `refused`, breaks at those with one in `broken`, and takes an hour for `slow`.
    """

    def __init__(self) -> None:
        self.requests: list[list[str]] = []
        self.finished = 0
        self.refused: set[str] = set()
        self.broken: set[str] = set()
        self.slow: set[str] = set()

    async def __call__(self, texts: Sequence[str]) -> Embedding:
        self.requests.append(list(texts))
        await asyncio.sleep(3_600.0 if self.slow & set(texts) else 1.0)
        self.finished += 1
        if self.refused & set(texts):
            raise TextRefused("the endpoint answered 400", code="http_400")
        if self.broken & set(texts):
            raise Retry("the endpoint answered 500")
        return Embedding([[float(len(text))] for text in texts], sum(map(len, texts)))


def gathered(provider: Provider, **limits: float) -> Gathered:
    """Make an embedder on a provider."""
    return Gathered("model", provider, EmbeddingLimits(**limits))  # type: ignore[arg-type]  # numbers of both kinds


def lengths(answer: Embedding) -> list[float]:
    """Return the numbers of an answer."""
    return [vector[0] for vector in answer.vectors]


async def test_calls_within_the_time_share_a_request() -> None:
    """What is asked for within 20 ms goes out together; what comes later, by itself."""
    provider = Provider()
    embedder = gathered(provider)
    first = asyncio.create_task(embedder.embed(["a", "bb"]))
    await asyncio.sleep(0.019)
    second = asyncio.create_task(embedder.embed(["ccc"]))
    await asyncio.sleep(0.002)
    third = asyncio.create_task(embedder.embed(["dddd"]))
    answers = await asyncio.gather(first, second, third)
    assert provider.requests == [["a", "bb", "ccc"], ["dddd"]]
    assert [lengths(answer) for answer in answers] == [[1, 2], [3], [4]]
    assert [answer.tokens for answer in answers] == [4, 2, 4]


async def test_a_full_request_does_not_wait() -> None:
    """By count or by tokens, whichever is first; a text that is larger than all goes by itself."""
    provider = Provider()
    await gathered(provider, texts=2).embed(["a", "b", "c"])
    assert provider.requests == [["a", "b"], ["c"]]
    provider = Provider()
    await gathered(provider, tokens=4).embed(["x" * 6, "y" * 6, "z" * 6, "w" * 30])
    assert provider.requests == [["x" * 6, "y" * 6], ["z" * 6], ["w" * 30]]


async def test_a_text_that_is_asked_for_twice_is_sent_once() -> None:
    """In one call, by two callers, and while it is on its way; who asked first pays for it."""
    provider = Provider()
    embedder = gathered(provider)
    first = asyncio.create_task(embedder.embed(["same", "same"]))
    second = asyncio.create_task(embedder.embed(["same", "other"]))
    await asyncio.sleep(0.5)
    third = asyncio.create_task(embedder.embed(["same"]))
    answers = await asyncio.gather(first, second, third)
    assert provider.requests == [["same", "other"]]
    assert [lengths(answer) for answer in answers] == [[4, 4], [4, 5], [4]]
    assert [answer.tokens for answer in answers] == [4, 5, 0]
    await embedder.embed(["same"])
    assert len(provider.requests) == 2


async def test_a_failing_request_fails_exactly_its_callers() -> None:
    """Those with a text in it, even if their other texts were embedded; nobody else."""
    provider = Provider()
    provider.broken = {"bad"}
    embedder = gathered(provider, texts=2)
    answers = await asyncio.gather(
        embedder.embed(["bad"]),
        embedder.embed(["a", "b", "c"]),
        embedder.embed(["d"]),
        return_exceptions=True,
    )
    assert provider.requests == [["bad", "a"], ["b", "c"], ["d"]]
    assert [type(answer) for answer in answers] == [Retry, Retry, Embedding]


async def test_what_a_failed_call_has_paid_for_is_kept() -> None:
    """A large document that was stopped half way goes on where it was, and what it cost in all is told once."""
    provider = Provider()
    provider.broken = {"cccc"}
    embedder = gathered(provider, texts=1, kept=2)
    for _ in range(2):
        with pytest.raises(Retry):
            await embedder.embed(["aa", "bbb", "cccc"])
    provider.broken.clear()
    answer = await embedder.embed(["aa", "bbb", "cccc"])
    assert provider.requests == [["aa"], ["bbb"], ["cccc"], ["cccc"], ["cccc"]]
    assert (lengths(answer), answer.tokens) == ([2, 3, 4], 9)
    assert (await embedder.embed(["aa"])).tokens == 0


async def test_what_is_kept_is_bounded() -> None:
    """The oldest is asked for anew; of a call that was answered, or left before it was, nothing is kept."""
    provider = Provider()
    provider.broken = {"bad"}
    embedder = gathered(provider, texts=1, kept=1)
    with pytest.raises(Retry):
        await embedder.embed(["a", "b", "bad"])
    await embedder.embed(["b", "c"])
    await embedder.embed(["a", "c"])
    assert provider.requests == [["a"], ["b"], ["bad"], ["c"], ["a"], ["c"]]


async def test_a_caller_that_is_stopped_loses_nothing_it_paid_for() -> None:
    """A deadline that passes while the last request runs does not make the first ones be in vain."""
    provider = Provider()
    provider.slow = {"late"}
    embedder = gathered(provider, texts=1)
    caller = asyncio.create_task(embedder.embed(["a", "late"]))
    await asyncio.sleep(2.0)
    await cancelled(caller)
    assert (await embedder.embed(["a", "b"])).tokens == 2
    assert provider.requests == [["a"], ["late"], ["b"]]


async def test_a_refused_text_is_its_callers_alone() -> None:
    """Where a request of several callers is refused, each is asked for by itself, and one bad text stops no other."""
    provider = Provider()
    provider.refused = {"bad"}
    embedder = gathered(provider)
    answers = await asyncio.gather(
        embedder.embed(["a", "shared"]),
        embedder.embed(["bad", "b"]),
        embedder.embed(["c", "shared"]),
        return_exceptions=True,
    )
    assert [type(answer) for answer in answers] == [Embedding, Reject, Embedding]
    assert type(answers[1]) is Reject
    assert provider.requests[1:] == [["a"], ["shared"], ["bad", "b"], ["c"]]


async def test_a_refused_call_is_not_made_twice() -> None:
    """A caller that is alone with its request gets the refusal at once."""
    provider = Provider()
    provider.refused = {"bad"}
    with pytest.raises(Reject) as refused:
        await gathered(provider).embed(["bad", "a"])
    assert (refused.value.code, len(provider.requests)) == ("http_400", 1)


async def test_a_caller_that_leaves_takes_nothing_from_others() -> None:
    """While its texts wait and while they are on their way; what only it wanted and was not sent is not sent."""
    provider = Provider()
    embedder = gathered(provider)
    leaver = asyncio.create_task(embedder.embed(["mine", "ours"]))
    stayer = asyncio.create_task(embedder.embed(["ours", "theirs"]))
    await asyncio.sleep(0.01)
    await cancelled(leaver)
    second = asyncio.create_task(embedder.embed(["ours"]))
    await asyncio.sleep(0.5)
    await cancelled(second)
    answer = await stayer
    assert provider.requests == [["ours", "theirs"]]
    assert (lengths(answer), answer.tokens) == ([4, 6], 10)


async def test_a_request_that_nobody_waits_for_is_given_up() -> None:
    """Its slot is needed; whoever wants one of its texts afterwards sends it anew."""
    provider = Provider()
    embedder = gathered(provider)
    callers = [asyncio.create_task(embedder.embed([text, "both"])) for text in ("a", "b")]
    await asyncio.sleep(0.5)
    for caller in callers:
        await cancelled(caller)
    assert lengths(await embedder.embed(["both"])) == [4]
    assert (len(provider.requests), provider.finished) == (2, 1)


async def test_what_nobody_waits_for_any_more_is_not_sent() -> None:
    """A caller that leaves within the 20 ms has cost nothing."""
    provider = Provider()
    embedder = gathered(provider)
    caller = asyncio.create_task(embedder.embed(["a"]))
    await asyncio.sleep(0.01)
    await cancelled(caller)
    await asyncio.sleep(1.0)
    assert provider.requests == []


async def test_the_last_one_who_leaves_does_not_undo_what_others_were_told() -> None:
    """Of a refused request each caller has an end of its own; what is left of it is given up with its last caller."""
    provider = Provider()
    provider.refused = {"bad"}
    embedder = gathered(provider)
    callers = [asyncio.create_task(embedder.embed([text])) for text in ("a", "bad", "late")]
    await asyncio.sleep(0.5)
    provider.slow = {"late"}
    await asyncio.sleep(2.0)
    await cancelled(callers.pop())
    provider.slow.clear()
    ends = await asyncio.gather(*callers, return_exceptions=True)
    assert [type(end) for end in ends] == [Embedding, Reject]
    assert lengths(await embedder.embed(["late"])) == [4]


async def test_those_who_left_are_not_asked_for_again() -> None:
    """A refused request is repeated for those alone who still wait."""
    provider = Provider()
    provider.refused = {"bad"}
    embedder = gathered(provider)
    leaver = asyncio.create_task(embedder.embed(["bad"]))
    stayers = [asyncio.create_task(embedder.embed([text])) for text in ("a", "b")]
    await asyncio.sleep(0.5)
    await cancelled(leaver)
    await asyncio.gather(*stayers)
    assert provider.requests == [["bad", "a", "b"], ["a"], ["b"]]


async def test_an_answer_of_the_wrong_size_fails_its_callers() -> None:
    """Whoever makes requests promises a vector for each text; a mistake in that is nobody's hang."""

    async def short(texts: Sequence[str]) -> Embedding:
        return Embedding([], 0)

    with pytest.raises(ValueError, match="zip"):
        await Gathered("model", short, EmbeddingLimits()).embed(["a"])


async def test_closing_leaves_nobody_waiting() -> None:
    """Callers whose texts wait or are on their way are told to come again."""
    provider = Provider()
    embedder = gathered(provider)
    sent = asyncio.create_task(embedder.embed(["a"]))
    await asyncio.sleep(0.5)
    waiting = asyncio.create_task(embedder.embed(["b"]))
    await asyncio.sleep(0)
    await embedder.close()
    assert [type(end) for end in await asyncio.gather(sent, waiting, return_exceptions=True)] == [Retry, Retry]


async def test_a_text_that_is_too_long_is_cut() -> None:
    """Its beginning is embedded, knowingly: it says what a long question is about."""
    provider = Provider()
    await gathered(provider, text_tokens=2).embed(["  a long question"])
    assert provider.requests == [["a long"]]


async def test_half_a_character_is_sent_as_a_question_mark() -> None:
    """A lone surrogate cannot be encoded."""
    provider = Provider()
    await gathered(provider).embed(["a\ud800b"])
    assert provider.requests == [["a?b"]]


@given(st.text("a \u6f22", max_size=60), st.integers(1, 20))
def test_what_is_sent_fits(text: str, tokens: int) -> None:
    """Whatever the text, a beginning of it that is within the limit, unless there is nothing in it."""
    if not text.strip():
        with pytest.raises(Reject):
            fitted(text, 0, tokens)
    else:
        sent = fitted(text, 0, tokens)
        assert sent.strip()
        assert estimate_tokens(sent) <= tokens
        assert text.strip().startswith(sent.strip())


@given(st.lists(st.integers(0, 1_000), min_size=1), st.integers(0, 10**6))
def test_shares_add_up(weights: list[int], total: int) -> None:
    """What a request cost is shared out whole, in proportion."""
    shares = shared(weights, total)
    assert len(shares) == len(weights)
    assert sum(shares) == (total if sum(weights) else 0)
    assert all(share >= 0 for share in shares)


@pytest.mark.parametrize("wrong", [{"concurrency": 0}, {"texts": 0}, {"tokens": 0}, {"text_tokens": 0}, {"timeout": 0}])
def test_limits_that_let_nothing_through_are_refused(wrong: dict[str, int]) -> None:
    """A mistake at declaration, not a hang."""
    with pytest.raises(ValueError, match="nothing through"):
        EmbeddingLimits(**wrong)


async def cancelled(task: asyncio.Task[Embedding]) -> None:
    """Cancel a caller, and wait until it has left."""
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
