"""Structured logs: JSON lines on stderr, or coloured lines on a terminal. Each line carries a stable `action`.

Job, trace and stage are lent to every line written during a try. They are spelt only where a line is written: most
tries write none.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Mapping
from contextvars import ContextVar, Token
from typing import Any, Literal, Protocol

import structlog
from structlog.contextvars import merge_contextvars
from structlog.typing import EventDict, FilteringBoundLogger, Processor, WrappedLogger

Format = Literal["auto", "json", "console"]


class Context(Protocol):
    """What lends its names to the lines written meanwhile."""

    def said(self) -> Mapping[str, str]:
        """The names (job, trace, stage, ...) for one line."""
        ...


_lent: ContextVar[Context | None] = ContextVar("lent", default=None)


def configure(style: Format = "auto", level: str = "INFO", *, color: bool = True) -> None:
    """Set up logging for this process. `auto` is `console` on a terminal, `json` elsewhere."""
    pretty = style == "console" or (style == "auto" and sys.stderr.isatty())
    chain: list[Processor] = [
        merge_contextvars,
        merge_lent,
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


def debugging() -> bool:
    """Whether lines of level debug are written, as configured now: for those who would write one for each record."""
    return get().is_enabled_for(logging.DEBUG)


def lend(context: Context) -> Token[Context | None]:
    """Lend `context` to every line written from now on in this task, and in those it starts."""
    return _lent.set(context)


def take_back(token: Token[Context | None]) -> None:
    """End what `lend` began."""
    _lent.reset(token)


def merge_lent(_logger: WrappedLogger, _method: str, line: EventDict) -> EventDict:
    """The processor that spells what was lent; what the line says itself wins."""
    context = _lent.get()
    if context is not None:
        for name, text in context.said().items():
            line.setdefault(name, text)
    return line
