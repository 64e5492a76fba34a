"""Text from outside, made comparable: one Unicode form, one kind of line end, no control characters."""

from __future__ import annotations

import unicodedata
from itertools import chain

_KEPT = {ord("\n"), ord("\t")}
# C0 and C1 controls have no place in prose and confuse terminals and models; lone surrogates cannot be encoded at all.
_DROPPED = dict.fromkeys({*range(0x20), *range(0x7F, 0xA0)} - _KEPT) | dict.fromkeys(chain(range(0xD800, 0xE000)))


def normalise(text: str) -> str:
    """Return `text` in NFC (UAX #15), lines ended by newlines, without control characters and blank ends."""
    lines = text.replace("\r\n", "\n").replace("\r", "\n")
    # Dropping a character may bring two together that NFC would compose, so it is done first.
    return unicodedata.normalize("NFC", lines.translate(_DROPPED)).strip()
