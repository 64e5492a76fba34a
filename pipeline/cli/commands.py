"""What the shorter verbs do."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterable, Sequence
from contextlib import AsyncExitStack
from dataclasses import asdict
from pathlib import Path

from rich.markup import escape
from rich.table import Table

from pipeline import wiring
from pipeline.cli.console import bars, print_json, print_text
from pipeline.cli.doctor import examine as findings
from pipeline.cli.session import ERR, FAILED, OUT, say
from pipeline.core import names
from pipeline.core.errors import ConfigurationError
from pipeline.core.payloads import Request
from pipeline.devkit.runfolder import RunFolder
from pipeline.ops.submit import endings, read_requests
from pipeline.resources import resource
from pipeline.settings import Configured
from pipeline.wire.compat import check_schemas

END_SECONDS = 60.0


async def submit_one(configured: Configured, request: Request, wait: bool, timeout: float) -> int:
    """Send one request."""
    return await _submit(configured, [request], wait=wait, timeout=timeout)


async def submit_lines(configured: Configured, lines: Iterable[str], origin: str, *, wait: bool, timeout: float) -> int:
    """Send the requests of a file. Nothing is sent where any line is wrong."""
    return await _submit(configured, list(read_requests(lines, origin)), wait=wait, timeout=timeout)


async def _submit(configured: Configured, requests: Sequence[Request], *, wait: bool, timeout: float) -> int:
    prefix = configured.settings.topic_prefix
    results = names.topic(prefix, "results")
    async with AsyncExitStack() as stack:
        desk = await stack.enter_async_context(wiring.open_desk(configured, say))
        records = None
        if wait:
            topics = [results, names.topic(prefix, "failures")]
            records = await stack.enter_async_context(wiring.open_tail(configured, topics))
        progress = stack.enter_context(bars(ERR))
        jobs = []
        for number, request in enumerate(requests, start=1):
            jobs.append(await desk.request(request))
            progress("sending", number, len(requests))
            if records is None:
                print_json({"job": jobs[-1]})
        if records is None:
            return 0
        ended: dict[str, str] = {}
        try:
            async with asyncio.timeout(timeout):
                async for ending in endings(records, desk.codec, results, jobs):
                    ended[ending.job] = ending.status
                    progress("waiting for the jobs to end", len(ended), len(set(jobs)))
                    print_json(asdict(ending))
        except TimeoutError:
            missing = len(set(jobs)) - len(ended)
            raise ConfigurationError(
                f"{missing} of {len(set(jobs))} jobs have not ended within {timeout:g} s: they go on; a longer "
                "--timeout waits longer, and the log of the stages says what they wait for"
            ) from None
        return 0 if set(ended.values()) == {"completed"} else FAILED


async def topics_create(configured: Configured) -> None:
    """Create what is missing and say so."""
    async with wiring.opened_admin(configured, say) as admin:
        for name, creation in (await wiring.create_topics(configured, admin)).items():
            OUT.print(f"{creation}  {name}", highlight=False)


async def topics_grow(configured: Configured, partitions: int) -> None:
    """Grow the topics and say so, one by one."""
    async with wiring.opened_admin(configured, say) as admin:
        async for name, before in wiring.grow_topics(configured.settings.topic_prefix, admin, partitions):
            change = "present " if before == partitions else f"{before} to {partitions}"
            OUT.print(f"{change}  {name}", highlight=False)
    OUT.print(f"set PIPELINE_PARTITIONS={partitions}: it is what `topics check` goes by", highlight=False)
    OUT.print("from now on a key may be in another partition than its earlier records", highlight=False)


async def topics_check(configured: Configured) -> int:
    """Print what is wrong with the topics; returns the exit code."""
    async with wiring.opened_admin(configured, say) as admin:
        return _problems(await wiring.check_topics(configured, admin), "all topics are as they must be")


def schemas_check(folder: Path | None) -> int:
    """Print what is wrong with the schemas; returns the exit code."""
    return _problems(check_schemas(folder or resource("schemas")), "all versions of all schemas are compatible")


async def examine(configured: Configured) -> int:
    """Print what was found; returns 1 where something that is needed is missing."""
    table = Table("", "what", "found", "cure")
    lacking = 0
    async for finding in findings(configured):
        mark = "[green]ok[/]" if finding.fine else "[red]missing[/]" if finding.needed else "[yellow]absent[/]"
        table.add_row(mark, finding.name, escape(finding.found), "" if finding.fine else escape(finding.cure))
        lacking += finding.needed and not finding.fine
    OUT.print(table)
    return FAILED if lacking else 0


def wait_for_end(folder: RunFolder) -> None:
    """Wait until nobody owns the run folder. Raises ConfigurationError where that takes too long."""
    end = time.monotonic() + END_SECONDS
    while folder.owner() is not None:
        if time.monotonic() > end:
            raise ConfigurationError(f"`pipeline {folder.owner()}` has not ended within {END_SECONDS:g} s")
        time.sleep(0.1)


def _problems(problems: Sequence[str], fine: str) -> int:
    for problem in problems:
        print_text(problem)
    if not problems:
        say(fine)
    return FAILED if problems else 0
