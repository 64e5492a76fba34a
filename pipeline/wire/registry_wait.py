"""The start of whoever writes records: a schema registry that is away, or lacks a schema, is waited for."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Collection

from pipeline.core.errors import ConfigurationError, Defer
from pipeline.wire.codec import AvroCodec

LOOK_SECONDS = 1.0
"""How long a registry that was away is left alone."""


async def wait_for_schemas(
    codec: AvroCodec, nouns: Collection[str], seconds: float, progress: Callable[[str], None]
) -> None:
    """Look up what `nouns` are written with (`AvroCodec.prepare`); `progress` is told what is waited for, and why.

    Raises ConfigurationError after `seconds`, naming the address and the variables to look at.
    """
    begin = time.monotonic()
    while True:
        try:
            return await codec.prepare(sorted(nouns))
        except Defer as away:
            waited = time.monotonic() - begin
            if waited >= seconds:
                cure = "mend that, correct SCHEMA_REGISTRY_URL, or wait longer with PIPELINE_STARTUP_SECONDS"
                raise ConfigurationError(f"{away.reason}, for {seconds:g} s now: {cure}") from None
            progress(f"waiting for the schema registry, {waited:.0f} of {seconds:g} s: {away.reason}")
            await asyncio.sleep(min(LOOK_SECONDS, seconds - waited))
