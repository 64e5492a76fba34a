"""What a person sees of webhook endpoints and does to them: their state, turning them off and on, changing secrets."""

from __future__ import annotations

import contextlib
import os
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from pipeline.core.catalog import Catalog, Endpoint
from pipeline.core.control import Entry, endpoint_key
from pipeline.core.endpoints import EndpointState, disabling, state_of
from pipeline.core.errors import ConfigurationError
from pipeline.core.payloads import Audit, Control
from pipeline.ops.deliveries import Outcomes

DISABLED, ENABLED = "endpoint.disabled", "endpoint.enabled"
ROTATED, RETIRED = "endpoint.rotated", "endpoint.retired"

MOST_SECRETS = 3
"""How many secrets an endpoint signs with at most: each makes the header of signatures longer."""


@dataclass(frozen=True, slots=True)
class Row:
    """One endpoint, as `endpoints list` shows it. Times are epoch ms; `last` is the last attempt."""

    endpoint: str
    state: str
    since_ms: int | None
    by: str
    why: str
    events: Sequence[str]
    body_version: int
    ordered: bool
    outcomes: Mapping[str, int]
    last: str = ""
    last_status: int | None = None
    last_at_ms: int | None = None
    last_ms: int | None = None

    @property
    def plain(self) -> dict[str, Any]:
        """Return it as a JSON object."""
        return asdict(self)


def checked(name: str, catalog: Catalog) -> Endpoint:
    """Find an endpoint. Raises ConfigurationError that lists those there are."""
    endpoint = catalog.endpoints.get(name)
    if endpoint is None:
        raise ConfigurationError(f"no endpoint is called {name!r}: there are {', '.join(sorted(catalog.endpoints))}")
    return endpoint


def rows(catalog: Catalog, standing: Mapping[str, Control], outcomes: Mapping[str, Outcomes]) -> list[Row]:
    """Tell of each endpoint of the catalog, and of those that are disabled but in it no more."""
    gone = sorted(set(standing) - set(catalog.endpoints))
    known = [_row(name, one, standing.get(name), outcomes.get(name)) for name, one in catalog.endpoints.items()]
    return known + [_row(name, None, standing[name], outcomes.get(name)) for name in gone]


def _row(name: str, endpoint: Endpoint | None, entry: Control | None, seen: Outcomes | None) -> Row:
    state, last = state_of(entry), seen.last if seen else None
    return Row(
        endpoint=name,
        state=state.word if endpoint else f"{state.word}, not in the catalog",
        since_ms=entry.at_ms if entry else None,
        by=state.by,
        why=state.why,
        events=endpoint.events if endpoint else (),
        body_version=endpoint.body_version if endpoint else 0,
        ordered=endpoint.ordered if endpoint else False,
        outcomes=dict(seen.counts) if seen else {},
        last=last.delivery.outcome if last else "",
        last_status=last.delivery.status if last else None,
        last_at_ms=last.at_ms if last else None,
        last_ms=last.delivery.duration_ms if last else None,
    )


def turned_off(name: str, operator: str, reason: str, now: float) -> tuple[list[Entry], Audit]:
    """Disable an endpoint: the entry for all workers, and its audit record."""
    return [(endpoint_key(name), disabling(name, operator, reason, now))], audited(
        DISABLED, name, operator, reason, now
    )


def turned_on(name: str, state: EndpointState, operator: str, reason: str, now: float) -> tuple[list[Entry], Audit]:
    """Enable an endpoint, and forget since when it fails. Raises ConfigurationError where it is enabled."""
    if state.open:
        raise ConfigurationError(f"the endpoint {name!r} is not disabled: `pipeline endpoints list` shows its state")
    return [(endpoint_key(name), None)], audited(ENABLED, name, operator, reason, now)


def audited(action: str, name: str, operator: str, reason: str, now: float, **details: str) -> Audit:
    """Make the audit record of what was done to an endpoint."""
    at = int(now * 1000)
    return Audit(action=action, subject=name, operator=operator, reason=reason, at_ms=at, details=details)


# ------------------------------------------------------------------ secrets


def rotated(current: str, new: str) -> str:
    """Put a new secret before those that sign now. Raises ConfigurationError where there are too many."""
    secrets = current.split()
    if len(secrets) >= MOST_SECRETS:
        raise ConfigurationError(
            f"there are {len(secrets)} secrets already, and all sign: drop the old ones with --retire first"
        )
    return " ".join((new, *secrets))


def retired(current: str) -> str:
    """Keep the first secret alone. Raises ConfigurationError where there is no other."""
    secrets = current.split()
    if len(secrets) < 2:
        raise ConfigurationError("there is one secret only: nothing is to be retired")
    return secrets[0]


def check_writable(path: Path) -> None:
    """Raise ConfigurationError where a file's content cannot be replaced, as where a cluster mounts it."""
    real = path.resolve()
    if not os.access(real.parent, os.W_OK) or not os.access(real, os.W_OK):
        raise ConfigurationError(_unwritable(path, "Permission denied"))


def write_secret(path: Path, text: str) -> None:
    """Put `text` in the place of what a file holds, whole or not at all, under the file's own mode.

    Raises ConfigurationError where the file cannot be written, as where a cluster mounts it.
    """
    real = path.resolve()
    try:
        mode = real.stat().st_mode & 0o777
        handle, name = tempfile.mkstemp(prefix=f".{real.name}.", dir=real.parent)
        try:
            with os.fdopen(handle, "w", encoding="utf-8") as file:
                file.write(f"{text}\n")
                file.flush()
                os.fsync(file.fileno())
            Path(name).chmod(mode)
            Path(name).replace(real)
        except BaseException:
            with contextlib.suppress(OSError):
                Path(name).unlink()
            raise
    except OSError as error:
        raise ConfigurationError(_unwritable(path, error.strerror or type(error).__name__)) from None


def _unwritable(path: Path, why: str) -> str:
    return f"{path} cannot be written ({why}), so nothing was changed: change the secret where the file comes from"
