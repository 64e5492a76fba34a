"""What the verbs of `pipeline dlq` open, and how they print."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager

from pipeline.cli.console import bars
from pipeline.cli.dlq_options import Asked
from pipeline.cli.session import ERR, say
from pipeline.core.letter import LetterHead
from pipeline.core.letter_state import LetterState
from pipeline.lettering import open_letter_ports
from pipeline.ops.letters import Letters, open_letters
from pipeline.ops.log_scan import unhindered
from pipeline.settings import Configured


@asynccontextmanager
async def opened(configured: Configured, asked: Asked, *, states: bool = True) -> AsyncIterator[Letters]:
    """Open the dead letters, with bars on a terminal for what takes long; without `states` all of them are open yet."""
    with unhindered(), bars(ERR) as progress:
        async with open_letter_ports(configured, say, progress, asked.topics) as ports:
            yield await open_letters(ports) if states else Letters(ports)


def plain(head: LetterHead, state: LetterState, version: str) -> Mapping[str, object]:
    """Spell a letter for programs."""
    return {
        "letter": head.id,
        "topic": head.position.topic,
        "partition": head.position.partition,
        "offset": head.position.offset,
        "state": state.state,
        "assignee": state.assignee,
        "stage": head.stage,
        "group": head.group,
        "reason": head.code,
        "exception": head.exception,
        "text": head.reason,
        "fingerprint": head.fingerprint,
        "failed_at_ms": head.failed_at_ms,
        "first_failure_ms": head.first_failure_ms,
        "timestamp_ms": head.timestamp_ms,
        "job": head.job,
        "type": head.type,
        "tenant": head.tenant,
        "trace": head.trace_id,
        "run": head.run,
        "version": version,
        "software": head.version,
        "family": head.family,
        "origin": head.original,
        "attempts": head.tries.attempts,
        "deferrals": head.tries.deferrals,
        "timeouts": head.tries.timeouts,
        "deadline_ms": head.deadline_ms,
        "replays": max(head.replays, state.replays),
        "replay": head.replay_id or state.replay,
        "former": head.former,
    }
