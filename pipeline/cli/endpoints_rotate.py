"""`pipeline endpoints rotate`: a new signing secret for a webhook endpoint, without a message that nobody can verify.

The new secret signs first and the old one beside it, so that the receiver may change over when it likes; then the old
one is retired. A secret is printed only by `--show`, and never written to the audit or the log.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import typer

from pipeline import wiring
from pipeline.cli.console import print_json, print_text
from pipeline.cli.endpoint_name import Name
from pipeline.cli.operator import Operator, Reason, operator_of
from pipeline.cli.session import complaints, configure, run, say
from pipeline.clients.webhook import generate_secret, public_key
from pipeline.core.errors import ConfigurationError
from pipeline.core.payloads import Audit
from pipeline.ops import endpoints as ops
from pipeline.settings import Configured
from pipeline.topology import AUDIT

KINDS: tuple[Literal["v1", "v1a"], ...] = ("v1", "v1a")


@dataclass(frozen=True, slots=True)
class _Change:
    """What is to change: the `variable`, its `file` where it has one, all of its `text` then, and the `new` secret."""

    endpoint: str
    variable: str
    file: Path | None
    text: str
    new: str

    @property
    def secrets(self) -> int:
        """How many there are then."""
        return len(self.text.split())

    def sentences(self, *, show: bool) -> list[str]:
        """Say what was done, or where nothing can be done here, what a person has to do."""
        if self.file is None:
            which = "this new secret" if show else "a new secret (--show makes one)"
            cure = (
                f"put {which} before what it holds, with a blank between" if self.new else "keep its first secret alone"
            )
            return [f"{self.variable} is a plain variable, so nothing was changed: {cure}, and start the workers again"]
        if not self.new:
            return [f"{self.endpoint} signs with its newest secret alone"]
        return [
            f"{self.endpoint} signs with {self.secrets} secrets now, the new one first",
            f"give the new one to the receiver: it is the first in {self.file}",
            f"when the receiver verifies by it, in a day or so: pipeline endpoints rotate {self.endpoint} --retire",
        ]

    def plain(self, *, show: bool) -> dict[str, object]:
        """Return it as a JSON object."""
        told: dict[str, object] = {"endpoint": self.endpoint, "variable": self.variable, "secrets": self.secrets}
        told["changed"] = self.file is not None
        if self.new and (public := public_key(self.new)) and (self.file is not None or show):
            told["public_key"] = public
        return told | ({"secret": self.new} if show and self.new else {})


def rotate(  # noqa: PLR0913, PLR0917  # each is an option of the command line
    name: Name,
    retire: Annotated[bool, typer.Option("--retire", help="Drop all secrets but the newest.")] = False,
    kind: Annotated[
        str | None, typer.Option(help="v1 (a shared secret) or v1a (ed25519); the kind it has unless given.")
    ] = None,
    show: Annotated[bool, typer.Option("--show", help="Print the new secret.")] = False,
    reason: Reason = "",
    operator: Operator = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Give an endpoint a new secret; the old one signs beside it until it is retired."""
    configured = configure(level="WARNING")
    with complaints():
        change = _change(configured, name, kind, retire=retire)
    if change.file is not None:
        action, number = ops.RETIRED if retire else ops.ROTATED, str(change.secrets)
        details = {"secrets": number, "variable": change.variable}
        record = ops.audited(action, name, operator_of(operator), reason, wiring.CLOCK(), **details)
        run(_audit(configured, record))
        with complaints():
            ops.write_secret(change.file, change.text)
    _tell(change, show=show, as_json=as_json)


def _change(configured: Configured, name: str, kind: str | None, *, retire: bool) -> _Change:
    environment = configured.environment
    variable = ops.checked(name, wiring.catalog_of(configured)).secret_env
    current = environment.need(variable, f"the secret of the webhook endpoint {name!r}")
    file = environment.file_of(variable)
    if file is not None:
        ops.check_writable(file)
    new = "" if retire else generate_secret(_kind(kind, current))
    return _Change(name, variable, file, ops.retired(current) if retire else ops.rotated(current, new), new)


def _kind(wanted: str | None, current: str) -> Literal["v1", "v1a"]:
    if wanted is None:
        return "v1a" if current.startswith("whsk_") else "v1"
    for kind in KINDS:
        if wanted == kind:
            return kind
    raise ConfigurationError(f"--kind {wanted!r}: there are {' and '.join(KINDS)}")


async def _audit(configured: Configured, record: Audit) -> None:
    async with wiring.open_desk(configured, say) as desk:
        await wiring.need_topics(desk.admin, desk.prefix, AUDIT.noun)
        await desk.publisher.audit([record])


def _tell(change: _Change, *, show: bool, as_json: bool) -> None:
    told = change.plain(show=show)
    if as_json:
        print_json(told)
        return
    for sentence in change.sentences(show=show):
        say(sentence)
    for name in ("public_key", "secret"):
        if name in told:
            print_text(str(told[name]))
