"""A small schema registry on 127.0.0.1: as much of Confluent's HTTP API as we ask, and ways to be in trouble."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Literal

from aiohttp import web

Mood = Literal["well", "slow", "down", "broken", "refusing", "elsewhere", "babbling", "conflict"]
Answer = Callable[[web.Request], Awaitable[web.StreamResponse]]


class FakeRegistry:
    """Schemas by id and by subject. `calls` counts requests by method and path; `authorizations` are those they had.

    Moods: `slow` answers when `release` is set; `down` hangs up; `broken` answers 500, `refusing` 401, `conflict` 409,
    `elsewhere` is some other server's 404, `babbling` answers 200 with what is no JSON.
    """

    def __init__(self) -> None:
        self.mood: Mood = "well"
        self.release = asyncio.Event()
        self.calls: Counter[str] = Counter()
        self.authorizations: list[str] = []
        self.schemas: dict[int, dict[str, object]] = {}
        self.subjects: dict[str, list[int]] = {}
        self.url = ""

    def add(self, text: str, subject: str | None = None) -> int:
        """Register a schema, and return its id; the same text keeps its id."""
        entry: dict[str, object] = {"schema": text}
        known = [number for number, each in self.schemas.items() if each == entry]
        number = known[0] if known else len(self.schemas) + 1
        self.schemas[number] = entry
        if subject is not None and number not in self.subjects.setdefault(subject, []):
            self.subjects[subject].append(number)
        return number

    @asynccontextmanager
    async def running(self, port: int = 0) -> AsyncIterator[FakeRegistry]:
        """Serve on a port of 127.0.0.1, a free one unless it is given, until the block ends; `url` is its address."""
        app = web.Application(middlewares=[self._trouble])
        app.add_routes(
            [
                web.get("/schemas/ids/{id}", self._by_id),
                web.post("/subjects/{subject}", self._look_up),
                web.post("/subjects/{subject}/versions", self._register),
                web.get("/subjects/{subject}/versions/latest", self._latest),
                web.get("/config", self._config),
                web.get("/config/{subject}", self._config),
            ]
        )
        runner = web.AppRunner(app, shutdown_timeout=1)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", port)
        await site.start()
        self.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
        try:
            yield self
        finally:
            self.release.set()
            await runner.cleanup()

    @web.middleware
    async def _trouble(self, request: web.Request, handler: Answer) -> web.StreamResponse:
        self.calls[f"{request.method} {request.path}"] += 1
        self.authorizations.append(request.headers.get("Authorization", ""))
        match self.mood:
            case "slow":
                await self.release.wait()
            case "down":
                assert request.transport is not None
                request.transport.close()
            case "broken":
                return _error(500, 50001, "a password of mine: hunter2")
            case "refusing":
                return _error(401, 401, "Unauthorized")
            case "conflict":
                return _error(409, 409, "Incompatible")
            case "elsewhere":
                return web.Response(status=404, text="<h1>Not found</h1>")
            case "babbling":
                return web.Response(text="hello")
        return await handler(request)

    async def _by_id(self, request: web.Request) -> web.StreamResponse:
        entry = self.schemas.get(int(request.match_info["id"]))
        return web.json_response(entry) if entry else _error(404, 40403, "Schema not found")

    async def _look_up(self, request: web.Request) -> web.StreamResponse:
        subject, body = request.match_info["subject"], await request.json()
        if subject not in self.subjects:
            return _error(404, 40401, "Subject not found")
        for version, number in enumerate(self.subjects[subject], 1):
            if self.schemas[number]["schema"] == body["schema"]:
                return web.json_response({"subject": subject, "id": number, "version": version, **self.schemas[number]})
        return _error(404, 40403, "Schema not found")

    async def _register(self, request: web.Request) -> web.StreamResponse:
        body = await request.json()
        return web.json_response({"id": self.add(body["schema"], request.match_info["subject"])})

    async def _latest(self, request: web.Request) -> web.StreamResponse:
        subject = request.match_info["subject"]
        numbers = self.subjects.get(subject)
        if not numbers:
            return _error(404, 40401, "Subject not found")
        answer = {"subject": subject, "id": numbers[-1], "version": len(numbers), **self.schemas[numbers[-1]]}
        return web.json_response(answer)

    async def _config(self, request: web.Request) -> web.StreamResponse:
        return web.json_response({"compatibilityLevel": "FULL_TRANSITIVE"})


def _error(status: int, code: int, message: str) -> web.Response:
    return web.json_response({"error_code": code, "message": message}, status=status)
