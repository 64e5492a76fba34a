"""The source database's address, and one that is away; what it answers is tested where it is asked."""

from __future__ import annotations

import pytest

from pipeline.clients.source_database import AWAY_SECONDS, open_source
from pipeline.core.errors import ConfigurationError, Defer


@pytest.mark.parametrize(
    "url", ["nonsense", "http://a:hidden@b", "postgresql://a:hidden@b:port/c", "postgresql://[::hidden/x", ""]
)
async def test_what_is_no_address_is_refused_and_not_shown(url: str) -> None:
    """A wrong address ends with one sentence that says how to write it, and never repeats its password."""
    with pytest.raises(ConfigurationError, match=r"SOURCE_DATABASE_URL .* write it as") as caught:
        async with open_source(url, lambda: 0.0):
            pass
    assert "hidden" not in str(caught.value)


async def test_a_database_that_is_away_defers_what_is_asked() -> None:
    """Opening says nothing of a database that is away; each question to it is deferred, without its password."""
    async with open_source("postgresql://user:hidden@127.0.0.1:1/shop", lambda: 50.0) as source:
        with pytest.raises(Defer) as caught:
            await source.rows("SELECT 1")
    assert caught.value.until == 50.0 + AWAY_SECONDS
    assert "hidden" not in caught.value.reason
