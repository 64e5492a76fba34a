"""librdkafka's log lines."""

from __future__ import annotations

import logging

from pipeline.broker.client_log import QUIET_SECONDS, ClientLog


class Lines:
    """Keeps lines, as a logger would write them."""

    def __init__(self) -> None:
        """Keep none yet."""
        self.written: list[tuple[int, str, dict[str, object]]] = []

    def log(self, level: int, event: str, **fields: object) -> None:
        """Keep a line."""
        self.written.append((level, event, fields))


def test_a_facility_speaks_once_in_a_while() -> None:
    """Of a flood the first line is written, and after a while one that says how many were held back."""
    lines, now = Lines(), [0.0]
    log = ClientLog(lines, lambda: now[0])
    for _ in range(5):
        log.log(logging.WARNING, "%s [%s] %s", "FAIL", "client-1", "refused")
    log.log(logging.WARNING, "%s [%s] %s", "FAIL", "client-2", "refused")
    now[0] = QUIET_SECONDS
    log.log(logging.WARNING, "%s [%s] %s", "FAIL", "client-1", "refused again")
    assert [(event, fields["client"], fields.get("held_back")) for _, event, fields in lines.written] == [
        ("refused", "client-1", None),
        ("refused", "client-2", None),
        ("refused again", "client-1", 4),
    ]


def test_a_lost_connection_is_a_warning() -> None:
    """A broker that is away is no error of this process; other errors stay errors."""
    lines = Lines()
    log = ClientLog(lines, lambda: 0.0)
    log.log(logging.ERROR, "", "FAIL", "client", "refused")
    log.log(logging.ERROR, "", "FATAL", "client", "fenced")
    assert [level for level, _, _ in lines.written] == [logging.WARNING, logging.ERROR]


def test_expected_lines_are_passed_over() -> None:
    """That a consumer does not use a producer's property is no news."""
    lines = Lines()
    text = "Configuration property acks is a producer property and will be ignored by this consumer instance"
    ClientLog(lines, lambda: 0.0).log(logging.WARNING, "", "CONFWARN", "client", text)
    assert lines.written == []


def test_debug_lines_are_all_written() -> None:
    """Who asks for librdkafka's debug lines gets them all."""
    lines = Lines()
    log = ClientLog(lines, lambda: 0.0)
    for _ in range(3):
        log.log(logging.DEBUG, "", "FETCH", "client", "fetched")
    assert len(lines.written) == 3
