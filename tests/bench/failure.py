"""What becomes of a benchmark that cannot be measured: a sentence, and a file with all that its program printed."""

from __future__ import annotations

import time
import traceback
from collections.abc import Sequence
from pathlib import Path

from pipeline.devkit.kafka_errors import EmbeddedKafkaError

OUTPUTS = Path(".bench") / "failed"
_LINE_CHARACTERS = 300


class Failed(Exception):
    """A benchmark could not be measured; the message is a sentence that says why."""


def failed(arguments: Sequence[str], what: str, output: Path) -> Failed:
    """Make a sentence of a program that did not do well, and keep all it printed in `OUTPUTS`."""
    text = output.read_text("utf-8", "replace")
    kept = _kept(output.name, f"{' '.join(arguments)}\n{text}")
    last = next((line for line in reversed(text.splitlines()) if line.strip()), "nothing")
    program = next((one for one in arguments[1:] if not one.startswith("-")), arguments[0])
    return Failed(f"{program} {what}; its last line: {last.strip()[:_LINE_CHARACTERS]} (all of it: {kept})")


def reason(error: Exception) -> str:
    """Say in a sentence why a benchmark stopped. Of what nobody expects, the traceback is kept in `OUTPUTS`."""
    if isinstance(error, Failed | EmbeddedKafkaError):
        return str(error)
    kept = _kept(f"traceback-{time.monotonic_ns()}", "".join(traceback.format_exception(error)))
    return f"{type(error).__name__}: {error} (all of it: {kept})"


def _kept(name: str, text: str) -> Path:
    OUTPUTS.mkdir(parents=True, exist_ok=True)
    kept = OUTPUTS / f"{name}.txt"
    kept.write_text(text, encoding="utf-8")
    return kept
