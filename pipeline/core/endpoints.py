"""Webhook endpoints: when one counts as failing, when it is disabled, and which URLs a request may bring. Pure rules.

What is known of an endpoint stands in the control topic, under `endpoint/<name>`, so that all workers agree: "failing"
since its first failure after a success, "disabled" once it is not to be used; nothing where it does well. Only a person
takes "disabled" back.
"""

from __future__ import annotations

import re
from collections.abc import Collection
from dataclasses import dataclass
from typing import NamedTuple

from pipeline.core.control import DISABLED, FAILING
from pipeline.core.payloads import Control

SCHEDULE = (5.0, 300.0, 1_800.0, 7_200.0, 18_000.0, 36_000.0, 36_000.0)
"""Seconds from each attempt at a webhook to the next one, as Svix has made usual; after the last: the dead letter."""

LAST_ATTEMPT = len(SCHEDULE) + 1
"""The number of the attempt after which there is no other."""

DAY_SECONDS = 86_400.0

ENDPOINT_DISABLED = "endpoint_disabled"
"""The code of a delivery that was not attempted, since its endpoint is disabled."""

OURSELVES = "pipeline"
"""Who disables an endpoint where no person does."""

MAX_URL = 2_048
"""The longest URL that a request may bring, in characters."""

# No port, user, fragment, backslash or IP address: a text that two parsers could read in two ways is refused. The last
# label of a public name is never a number (RFC 3696 section 2), so no spelling of an address passes for a name.
_LABEL = r"[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?"
_URL = re.compile(rf"https://((?:{_LABEL}\.)+[a-z](?:[a-z0-9-]{{0,61}}[a-z0-9]))(?:[/?][!-~]*)?", re.IGNORECASE)
_NEVER = re.compile(r"[\\#<>\"`{}|^]")


@dataclass(frozen=True, slots=True)
class EndpointState:
    """What is known of an endpoint. Times are seconds since the epoch; `by` and `why` tell who disabled it."""

    failing_since: float | None = None
    disabled_since: float | None = None
    by: str = ""
    why: str = ""

    @property
    def open(self) -> bool:
        """Whether messages may be posted to it."""
        return self.disabled_since is None

    @property
    def word(self) -> str:
        """Name the state."""
        if not self.open:
            return DISABLED
        return "ok" if self.failing_since is None else FAILING


HEALTHY = EndpointState()


@dataclass(frozen=True, slots=True)
class Heard:
    """What one attempt has said of its endpoint: `ok`, or the `reason` why not; `gone` where it asked not to come."""

    ok: bool
    reason: str = ""
    gone: bool = False


class Transition(NamedTuple):
    """What is to stand in the control topic from now on; None takes back what stands there."""

    entry: Control | None


def state_of(entry: Control | None) -> EndpointState:
    """Read what stands in the control topic about an endpoint."""
    if entry is None:
        return HEALTHY
    at = entry.at_ms / 1000
    if entry.state == DISABLED:
        return EndpointState(disabled_since=at, by=entry.operator, why=entry.reason)
    return EndpointState(failing_since=at, why=entry.reason)


def disabling(name: str, operator: str, reason: str, now: float) -> Control:
    """Make the entry that disables an endpoint."""
    return Control(state="disabled", endpoint=name, operator=operator, reason=reason, at_ms=int(now * 1000))


def transition(name: str, standing: Control | None, heard: Heard, now: float, days: float) -> Transition | None:
    """Say what an attempt changes about its endpoint, of which `standing` is told now; None where it changes nothing.

    An endpoint that failed for `days` without a success in between is disabled, one that says it is gone at once.
    """
    if standing is not None and standing.state == DISABLED:
        return None
    if heard.ok:
        return None if standing is None else Transition(None)
    if heard.gone:
        return Transition(disabling(name, OURSELVES, heard.reason, now))
    if standing is None:
        return Transition(Control(state="failing", endpoint=name, reason=heard.reason, at_ms=int(now * 1000)))
    if now - standing.at_ms / 1000 >= days * DAY_SECONDS:
        why = f"every attempt has failed for {days:g} days; the last: {heard.reason}"
        return Transition(disabling(name, OURSELVES, why, now))
    return None


def host_of(url: str) -> str:
    """Return the host of a URL that a request may bring, in lower case; empty for a text that is none."""
    found = _URL.fullmatch(url) if len(url) <= MAX_URL and not _NEVER.search(url) else None
    return found[1].lower() if found else ""


def may_reach(host: str, allowed: Collection[str]) -> bool:
    """Whether a host is among the `allowed` ones: spelt out, or `*.name` for all below a name, but not the name."""
    return any(_fits(host, one.lower().rstrip(".")) for one in allowed)


def _fits(host: str, one: str) -> bool:
    return host.endswith(one[1:]) and len(host) >= len(one) if one.startswith("*.") else host == one
