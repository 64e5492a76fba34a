"""A small Qdrant server for tests: its REST interface over the client library's own in-memory engine.

Requests are read by the library's models, so what the real server would not understand is refused here, too.
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from aiohttp import web
from pydantic import BaseModel
from qdrant_client import AsyncQdrantClient, models

from pipeline.devkit.listen import listening
from pipeline.devkit.ports import HOST

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


@dataclass
class Asked:
    """One request as it came."""

    method: str
    path: str
    headers: dict[str, str]
    body: Any


@dataclass
class Server:
    """A running server. The next requests get `troubles` as answers: status, headers, body."""

    engine: AsyncQdrantClient
    url: str = ""
    asked: list[Asked] = field(default_factory=list)
    troubles: list[tuple[int, dict[str, str], bytes]] = field(default_factory=list)

    def application(self) -> web.Application:
        """The routes that the product uses."""
        app = web.Application(middlewares=[self._note])
        app.router.add_get("/aliases", self._aliases)
        app.router.add_post("/collections/aliases", self._change_aliases)
        app.router.add_get("/collections", self._names)
        app.router.add_get("/collections/{name}/exists", self._exists)
        app.router.add_patch("/collections/{name}", self._update)
        app.router.add_delete("/collections/{name}", self._drop)
        app.router.add_put("/collections/{name}", self._create)
        app.router.add_get("/collections/{name}", self._about)
        app.router.add_put("/collections/{name}/index", self._index)
        app.router.add_put("/collections/{name}/points", self._upsert)
        app.router.add_post("/collections/{name}/points", self._retrieve)
        app.router.add_post("/collections/{name}/points/batch", self._batch)
        app.router.add_post("/collections/{name}/facet", self._facet)
        app.router.add_post("/collections/{name}/points/count", self._count)
        app.router.add_post("/collections/{name}/points/delete", self._delete)
        app.router.add_post("/collections/{name}/points/query", self._query)
        app.router.add_post("/collections/{name}/points/scroll", self._scroll)
        return app

    @web.middleware
    async def _note(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        raw = await request.read()
        self.asked.append(Asked(request.method, request.path, dict(request.headers), json.loads(raw or b"null")))
        if self.troubles:
            status, headers, body = self.troubles.pop(0)
            return web.Response(status=status, headers=headers, body=body)
        try:
            return await handler(request)
        except ValueError as error:
            if not str(error).startswith("Collection ") or "not found" not in str(error):
                raise
            return _error(404, f"Not found: Collection `{request.match_info.get('name')}` doesn't exist!")

    async def _aliases(self, _: web.Request) -> web.Response:
        return _ok(await self.engine.get_aliases())

    async def _change_aliases(self, http: web.Request) -> web.Response:
        """As the server does it (`update_aliases` of its table of contents): one action after the other, under a lock;
        those before one that fails stay done, and a rename does not mind what the new name stood for."""
        wanted = models.ChangeAliasesOperation.model_validate_json(await http.read())
        for action in wanted.actions:
            try:
                await self.engine.update_collection_aliases([action])
            except ValueError as error:
                return _error(409 if "already exists" in str(error) else 404, str(error))
        return _ok(result=True)

    async def _names(self, _: web.Request) -> web.Response:
        return _ok(await self.engine.get_collections())

    async def _update(self, http: web.Request) -> web.Response:
        wanted = models.UpdateCollection.model_validate_json(await http.read())
        return _ok(await self.engine.update_collection(http.match_info["name"], metadata=wanted.metadata))

    async def _drop(self, http: web.Request) -> web.Response:
        return _ok(await self.engine.delete_collection(http.match_info["name"]))

    async def _exists(self, http: web.Request) -> web.Response:
        return _ok({"exists": await self.engine.collection_exists(http.match_info["name"])})

    async def _create(self, http: web.Request) -> web.Response:
        wanted = models.CreateCollection.model_validate_json(await http.read())
        name = http.match_info["name"]
        if await self.engine.collection_exists(name):
            return web.json_response({"status": {"error": "it exists"}}, status=409)
        done = await self.engine.create_collection(
            name,
            vectors_config=wanted.vectors or {},
            sparse_vectors_config=wanted.sparse_vectors or {},
            metadata=wanted.metadata,
        )
        return _ok(done)

    async def _about(self, http: web.Request) -> web.Response:
        return _ok(await self.engine.get_collection(http.match_info["name"]))

    async def _index(self, http: web.Request) -> web.Response:
        models.CreateFieldIndex.model_validate_json(await http.read())
        return _ok({"operation_id": 0, "status": "completed"})

    async def _upsert(self, http: web.Request) -> web.Response:
        wanted = models.PointsList.model_validate_json(await http.read())
        name = http.match_info["name"]
        return _ok(await self.engine.upsert(name, wanted.points, update_filter=wanted.update_filter))

    async def _retrieve(self, http: web.Request) -> web.Response:
        wanted = models.PointRequest.model_validate_json(await http.read())
        found = await self.engine.retrieve(
            http.match_info["name"],
            wanted.ids,
            with_payload=True if wanted.with_payload is None else wanted.with_payload,
            with_vectors=wanted.with_vector or False,
        )
        return _ok([one.model_dump(mode="json") for one in found])

    async def _batch(self, http: web.Request) -> web.Response:
        wanted = models.UpdateOperations.model_validate_json(await http.read())
        done = await self.engine.batch_update_points(http.match_info["name"], wanted.operations)
        return _ok([one.model_dump(mode="json") for one in done])

    async def _facet(self, http: web.Request) -> web.Response:
        wanted = models.FacetRequest.model_validate_json(await http.read())
        name, limit = http.match_info["name"], wanted.limit or 10
        return _ok(await self.engine.facet(name, wanted.key, facet_filter=wanted.filter, limit=limit))

    async def _count(self, http: web.Request) -> web.Response:
        wanted = models.CountRequest.model_validate_json(await http.read())
        return _ok(await self.engine.count(http.match_info["name"], count_filter=wanted.filter, exact=True))

    async def _delete(self, http: web.Request) -> web.Response:
        selector = models.FilterSelector.model_validate_json(await http.read())
        return _ok(await self.engine.delete(http.match_info["name"], points_selector=selector))

    async def _query(self, http: web.Request) -> web.Response:
        wanted = models.QueryRequest.model_validate_json(await http.read())
        found = await self.engine.query_points(
            http.match_info["name"],
            query=wanted.query,
            prefetch=wanted.prefetch,
            using=wanted.using,
            limit=wanted.limit or 10,
            query_filter=wanted.filter,
            score_threshold=wanted.score_threshold,
        )
        return _ok(found)

    async def _scroll(self, http: web.Request) -> web.Response:
        wanted = models.ScrollRequest.model_validate_json(await http.read())
        found, further = await self.engine.scroll(
            http.match_info["name"],
            scroll_filter=wanted.filter,
            limit=wanted.limit or 10,
            order_by=wanted.order_by,
            offset=wanted.offset,
        )
        return _ok({"points": [one.model_dump(mode="json") for one in found], "next_page_offset": further})


def _error(status: int, told: str) -> web.Response:
    return web.json_response({"status": {"error": told}, "time": 0.0}, status=status)


def _ok(result: BaseModel | object) -> web.Response:
    plain = result.model_dump(mode="json") if isinstance(result, BaseModel) else result
    return web.json_response({"result": plain, "status": "ok", "time": 0.0})


@asynccontextmanager
async def qdrant_server() -> AsyncIterator[Server]:
    """Run a server on the loopback address."""
    server = Server(AsyncQdrantClient(":memory:"))
    async with listening(server.application(), 0, "qdrant") as port:
        server.url = f"http://{HOST}:{port}"
        yield server
    await server.engine.close()
