"""Takes secrets out of texts that reach people. Providers quote the key they refuse, whole or in part."""

from __future__ import annotations

import re

MASK = "***"
LIMIT = 300
"""The most characters of a text that go on."""

_KEYS = re.compile(r"\b(?:sk|pk|rk|whsec)[-_][\w*.\-]{4,}|\b(?:Bearer|Basic)\s+\S+", re.IGNORECASE)


def redact(text: str, *secrets: str) -> str:
    """Return `text` on one line, cut to `LIMIT` characters, without the given secrets and what looks like one."""
    for secret in filter(None, secrets):
        text = text.replace(secret, MASK)
    return _KEYS.sub(MASK, " ".join(text.split()))[:LIMIT]
