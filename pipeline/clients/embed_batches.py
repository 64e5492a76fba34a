"""Gathers what concurrent callers want embedded into few requests, and gives each caller its own.

A text that several callers want at the same time is sent once. A request that fails fails those who have a text in it,
and nobody else; where the provider refuses the texts of several callers, each caller's are sent by themselves, as the
fault is in one of them. A caller that leaves takes its texts along, unless somebody else wants them.

A caller whose texts fill many requests fails with the first that fails; what the others brought is paid for, so it is
kept for when the caller comes again. Else a document larger than a rate limit would be paid for again and again.
"""

from __future__ import annotations

import asyncio
from array import array
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from itertools import accumulate, count, pairwise

from pipeline.core.errors import Reject, Retry
from pipeline.core.index_ports import Embedding
from pipeline.core.limits import CHARACTERS_PER_TOKEN, estimate_tokens

Send = Callable[[Sequence[str]], Awaitable[Embedding]]
"""Makes one request. Raises the outcomes of the port, and `TextRefused` for a Reject that is about the texts."""


class TextRefused(Reject):
    """The provider refuses a text of a request; it does not say which."""


@dataclass(frozen=True, slots=True)
class EmbeddingLimits:
    """What one request may hold, and how many may be in flight. Tokens are estimated.

    `wait` is how many seconds a text waits for others to share its request, `timeout` how many a request may take, and
    `text_tokens` the longest text: of a longer one only the beginning is embedded. `kept` is how many vectors of calls
    that failed in part are kept.
    """

    concurrency: int = 4
    texts: int = 128
    tokens: int = 100_000
    text_tokens: int = 8_000
    wait: float = 0.02
    timeout: float = 60.0
    kept: int = 4_096

    def __post_init__(self) -> None:
        """Raise ValueError for a limit that lets nothing through."""
        if min(self.concurrency, self.texts, self.tokens, self.text_tokens) < 1 or self.timeout <= 0 or self.wait < 0:
            raise ValueError(f"limits of embedding that let nothing through: {self}")


@dataclass(frozen=True, slots=True)
class _Share:
    """What becomes of one text: its vector and what it cost."""

    vector: Sequence[float]
    tokens: int


@dataclass(eq=False, slots=True)
class _Wanted:
    """A text that is wanted, by whom, and what became of it: an exception is a value here, so none is lost unseen."""

    text: str
    tokens: int
    answer: asyncio.Future[_Share | BaseException]
    callers: set[int] = field(default_factory=set)
    payer: int = -1
    request: _Request | None = None


@dataclass(eq=False, slots=True)
class _Request:
    """Texts that were sent together."""

    wanted: Sequence[_Wanted]
    task: asyncio.Task[None] | None = None


class Gathered:
    """The port `Embedder` on a function that makes one request."""

    def __init__(self, model: str, send: Send, limits: EmbeddingLimits) -> None:
        """Send requests within `limits`; how many are in flight is for `send` to hold."""
        self._model = model
        self._send = send
        self._limits = limits
        self._wanted: dict[str, _Wanted] = {}
        self._waiting: dict[str, _Wanted] = {}
        self._tokens = 0
        self._kept: dict[str, _Share] = {}
        self._timer: asyncio.TimerHandle | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._callers = count()

    @property
    def model(self) -> str:
        """The model's name; see the port."""
        return self._model

    async def embed(self, texts: Sequence[str]) -> Embedding:
        """Embed some texts; see the port. Raises Reject for one without anything in it, which no provider takes."""
        sent = [fitted(text, place, self._limits.text_tokens) for place, text in enumerate(texts)]
        if not sent:
            return Embedding((), 0)
        me = next(self._callers)
        mine = [self._want(text, me) for text in dict.fromkeys(sent)]
        try:
            await asyncio.wait([wanted.answer for wanted in mine])
        except asyncio.CancelledError:
            self._leave(mine, me)
            self._keep(mine, me)
            raise
        answers = {wanted.text: wanted.answer.result() for wanted in mine}
        shares = {text: answer for text, answer in answers.items() if isinstance(answer, _Share)}
        for answer in answers.values():
            if isinstance(answer, BaseException):
                self._keep(mine, me)
                raise answer
        tokens = sum(shares[wanted.text].tokens for wanted in mine if wanted.payer == me)
        return Embedding([shares[text].vector for text in sent], tokens)

    async def close(self) -> None:
        """Give up what runs; callers that still wait get a Retry."""
        self._stop_timer()
        for task in tuple(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._settle(tuple(self._wanted.values()), Retry("the embedding client was closed", code="closed"))
        self._waiting.clear()

    # ------------------------------------------------------------------ texts

    def _want(self, text: str, caller: int) -> _Wanted:
        wanted = self._wanted.get(text)
        if wanted is None:
            answer: asyncio.Future[_Share | BaseException] = asyncio.get_running_loop().create_future()
            wanted = _Wanted(text, estimate_tokens(text), answer, {caller})
            if text in self._kept:
                self._recall(wanted)
            else:
                self._queue(wanted)
        wanted.callers.add(caller)
        return wanted

    def _recall(self, wanted: _Wanted) -> None:
        kept = self._kept[wanted.text]
        self._settle([wanted], _Share(list(kept.vector), kept.tokens))
        # From now on it has been paid for.
        self._kept[wanted.text] = _Share(kept.vector, 0)

    def _keep(self, mine: Sequence[_Wanted], caller: int) -> None:
        """Keep what a caller has paid for and will not get, in a sixth of the memory; the oldest goes first."""
        for wanted in mine:
            answer = wanted.answer.result() if wanted.answer.done() else None
            if wanted.payer == caller and isinstance(answer, _Share):
                self._kept[wanted.text] = _Share(array("f", answer.vector), answer.tokens)
        while len(self._kept) > self._limits.kept:
            del self._kept[next(iter(self._kept))]

    def _queue(self, wanted: _Wanted) -> None:
        if self._waiting and self._tokens + wanted.tokens > self._limits.tokens:
            self._flush()
        self._wanted[wanted.text] = self._waiting[wanted.text] = wanted
        self._tokens += wanted.tokens
        if len(self._waiting) >= self._limits.texts:
            self._flush()
        elif self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(self._limits.wait, self._flush)

    def _leave(self, mine: Sequence[_Wanted], caller: int) -> None:
        for wanted in mine:
            wanted.callers.discard(caller)
            if wanted.callers or wanted.answer.done():
                continue
            if wanted.request is None:
                self._tokens -= wanted.tokens if self._waiting.pop(wanted.text, None) else 0
                self._settle([wanted], Retry("nobody waits for it"))
            elif wanted.request.task and not any(
                one.callers and not one.answer.done() for one in wanted.request.wanted
            ):
                # Whoever wants one of its texts from now on sends it anew.
                self._settle(wanted.request.wanted, Retry("nobody waits for it"))
                wanted.request.task.cancel()

    # ------------------------------------------------------------------ requests

    def _flush(self) -> None:
        self._stop_timer()
        if self._waiting:
            request = _Request(tuple(self._waiting.values()))
            self._waiting.clear()
            self._tokens = 0
            for wanted in request.wanted:
                wanted.request = request
            request.task = asyncio.create_task(self._request(request.wanted))
            self._tasks.add(request.task)
            request.task.add_done_callback(self._tasks.discard)

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    async def _request(self, wanted: Sequence[_Wanted]) -> None:
        try:
            embedded = await self._send([one.text for one in wanted])
            costs = shared([one.tokens for one in wanted], embedded.tokens)
            for one, vector, tokens in zip(wanted, embedded.vectors, costs, strict=True):
                self._settle([one], _Share(vector, tokens))
        except TextRefused as refused:
            await self._refused(wanted, Reject(refused.reason, code=refused.code))
        except Exception as error:  # whatever it is, it is for those who wait to raise
            self._settle(wanted, error)

    async def _refused(self, wanted: Sequence[_Wanted], why: Reject) -> None:
        """Find out whose texts are refused; a caller that is alone need not know which of its own it is."""
        groups = _by_callers(wanted)
        self._settle(groups.pop(frozenset(), ()), why)
        if len(groups) > 1:
            await asyncio.gather(*map(self._request, groups.values()))
        else:
            self._settle(wanted, why)

    def _settle(self, wanted: Sequence[_Wanted], answer: _Share | BaseException) -> None:
        for one in wanted:
            if self._wanted.get(one.text) is one:
                del self._wanted[one.text]
            if not one.answer.done():
                one.payer = min(one.callers, default=-1)
                one.answer.set_result(answer)


def fitted(text: str, place: int, tokens: int) -> str:
    """Return what of a text is sent: the beginning that surely fits. Raises Reject where there is nothing to send.

    Chunks are far shorter; what is cut is a question as long as a book, and its beginning says what it is about.
    """
    if not text.strip():
        raise Reject(f"text {place} to embed is empty", code="empty_text")
    if len(text) > tokens and estimate_tokens(text) > tokens:
        text = text.strip()
        thirds = accumulate(1 if character.isascii() else CHARACTERS_PER_TOKEN for character in text)
        text = text[: sum(1 for total in thirds if total <= tokens * CHARACTERS_PER_TOKEN)]
    # Half a surrogate pair is no character, and cannot be sent.
    return text.encode("utf-8", "replace").decode()


def shared(weights: Sequence[int], total: int) -> list[int]:
    """Share `total` out in proportion to `weights`, so that the shares add up to it."""
    whole = max(sum(weights), 1)
    return [
        after - before
        for before, after in pairwise(total * so_far // whole for so_far in accumulate(weights, initial=0))
    ]


def _by_callers(wanted: Sequence[_Wanted]) -> dict[frozenset[int], list[_Wanted]]:
    """Part texts by those who want them."""
    groups: dict[frozenset[int], list[_Wanted]] = {}
    for one in wanted:
        groups.setdefault(frozenset(one.callers), []).append(one)
    return groups
