"""Structured logs: JSON lines on stderr, or coloured lines on a terminal. Each line carries a stable `action`.

Job, trace and stage are bound for the time of a try, so every line written meanwhile carries them.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Mapping
from contextlib import AbstractContextManager
from typing import Any, Literal

import structlog
from structlog.contextvars import bound_contextvars, merge_contextvars
from structlog.typing import FilteringBoundLogger, Processor

Format = Literal["auto", "json", "console"]


def configure(style: Format = "auto", level: str = "INFO", *, color: bool = True) -> None:
    """Set up logging for this process. `auto` is `console` on a terminal, `json` elsewhere."""
    pretty = style == "console" or (style == "auto" and sys.stderr.isatty())
    chain: list[Processor] = [
        merge_contextvars,
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        structlog.processors.StackInfoRenderer(),
    ]
    if pretty:
        chain.append(structlog.dev.ConsoleRenderer(colors=color))
    else:
        chain += [structlog.processors.format_exc_info, structlog.processors.JSONRenderer(default=str)]
    number = logging.getLevelNamesMapping()[level.upper()]
    structlog.configure(
        processors=chain,
        wrapper_class=structlog.make_filtering_bound_logger(number),
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
        cache_logger_on_first_use=False,
    )
    logging.basicConfig(
        stream=sys.stderr, level=max(number, logging.WARNING), format="%(levelname)s %(name)s %(message)s"
    )


def get(**bound: Any) -> FilteringBoundLogger:
    """Return a logger with `bound` on each of its lines."""
    logger: FilteringBoundLogger = structlog.get_logger(**bound)
    return logger


def during(context: Mapping[str, str]) -> AbstractContextManager[object]:
    """Bind `context` (job, trace, stage, ...) to every line written in the block, in this task."""
    return bound_contextvars(**context)
