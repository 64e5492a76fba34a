"""An index for tests, embedded or on a server, opened as the program opens it."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from pipeline.clients.passage_live import Passages
from pipeline.clients.qdrant import open_passages
from tests.clients.qdrant_server import qdrant_server


@asynccontextmanager
async def opened(kind: str, folder: Path) -> AsyncIterator[Passages]:
    """Open an empty index of a `kind`: `embedded` in the folder, or `remote`."""
    if kind == "embedded":
        async with open_passages(folder, None, None, "passages", time.time) as index:
            yield await index.current()
    else:
        async with qdrant_server() as server, open_passages(None, server.url, None, "passages", time.time) as index:
            yield await index.current()
