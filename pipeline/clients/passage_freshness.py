"""How far the index has followed its sources: nobody can tell yet, and nobody is told otherwise."""

from __future__ import annotations

from typing import Never

from pipeline.core.errors import Fail


class UnknownFreshness:
    """Fills the port `Freshness` where there is nothing to find it out by.

    A request that asks for a version is refused. The newest version seen would not do: the records of a source are in
    many partitions, and an older one may still be on its way.
    """

    async def caught_up(self, source: str, version: int) -> Never:
        """Refuse to say; see the port."""
        reason = f"as_fresh_as: how far the index has followed {source[:64]!r} is not known here (version {version})"
        raise Fail(reason, code="freshness_unknown")
