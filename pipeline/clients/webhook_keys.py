"""The keys of one endpoint, which change while the program runs: a file of secrets is read again when it changes.

A new content that cannot sign is told of in the log, and the old keys go on: a slip of the pen while keys are being
changed must not stop deliveries.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from pipeline.clients.webhook_signing import BadSecret, Key, keys
from pipeline.telemetry import logs

LOOK_SECONDS = 1.0
"""A file is looked at no more often than this."""

_Stamp = tuple[int, int, int] | None


class Keyring:
    """What signs for an endpoint now. `source` names where its secrets come from, for people."""

    def __init__(self, endpoint: str, secret: str, source: str, file: Path | None = None) -> None:
        """Begin with the keys in `secret`, and follow `file` where there is one. Raises BadSecret."""
        self._endpoint = endpoint
        self._source = source
        self._file = file
        self._keys = keys(secret)
        self._text = secret.split()
        self._stamp: _Stamp = None  # not that of now, which may be younger than `secret`
        self._looked = float("-inf")

    def keys(self, now: float) -> Sequence[Key]:
        """Return the keys at `now`, in seconds of a clock that does not go back."""
        if self._file is not None and now - self._looked >= LOOK_SECONDS:
            self._looked = now
            self._look(self._file)
        return self._keys

    def _look(self, file: Path) -> None:
        stamp = _stamp(file)
        if stamp == self._stamp:
            return
        # Kept for a bad content too, so that it is told of once.
        self._stamp = stamp
        try:
            text = file.read_text(encoding="utf-8")
            found = keys(text)
        except (BadSecret, OSError, UnicodeDecodeError) as error:
            problem = str(error) if isinstance(error, BadSecret) else f"cannot be read ({type(error).__name__})"
            logs.get().warning(
                f"the new secret of the webhook endpoint {self._endpoint!r}: {self._source} {problem};"
                " the old one goes on",
                action="webhook_secret_refused",
                endpoint=self._endpoint,
            )
            return
        if text.split() != self._text:
            self._keys, self._text = found, text.split()
            logs.get().info(
                f"the webhook endpoint {self._endpoint!r} signs with the new content of {self._source}",
                action="webhook_secret_changed",
                endpoint=self._endpoint,
            )


def _stamp(file: Path) -> _Stamp:
    """Tell one content of a file from another, also where a link to it is turned, as Kubernetes does."""
    try:
        found = file.stat()
    except OSError:
        return None
    return found.st_mtime_ns, found.st_size, found.st_ino
