"""Text from outside, made comparable: one Unicode form, one kind of line end, no control characters."""

from __future__ import annotations

import re
import unicodedata
from itertools import chain

_KEPT = {ord("\n"), ord("\t")}
# C0 and C1 controls have no place in prose and confuse terminals and models; lone surrogates cannot be encoded at all.
_DROPPED = dict.fromkeys({*range(0x20), *range(0x7F, 0xA0)} - _KEPT) | dict.fromkeys(chain(range(0xD800, 0xE000)))

# Where there may be marks that are set on the letter before them: not in Latin, nor in Han or Hangul alone.
_MAY_BE_MARKS = re.compile("[^\x00-\u02ff\u3400-\u9fff\uac00-\ud7ff]{32,}")
_MARKS = re.compile(rb"[^\0]{32,}")
# The only characters that are no marks by themselves, and nothing but marks when taken apart.
_PAIRS = {ord(one): unicodedata.normalize("NFD", one) for one in "\u0f73\u0f75\u0f81"}


def normalise(text: str) -> str:
    """Return `text` in NFC (UAX #15), lines ended by newlines, without control characters and blank ends."""
    lines = text.replace("\r\n", "\n").replace("\r", "\n")
    # Dropping a character may bring two together that NFC would compose, so it is done first.
    return unicodedata.normalize("NFC", _MAY_BE_MARKS.sub(_in_order, lines.translate(_DROPPED))).strip()


def _in_order(found: re.Match[str]) -> str:
    """Put long runs of marks into the canonical order (UAX #15), in which `normalize` takes time for their square."""
    text = found[0].translate(_PAIRS)
    classes = bytes(map(unicodedata.combining, text))
    done, parts = 0, list[str]()
    for run in _MARKS.finditer(classes):
        order = sorted(range(*run.span()), key=classes.__getitem__)
        parts += text[done : run.start()], "".join(map(text.__getitem__, order))
        done = run.end()
    return "".join([*parts, text[done:]])
