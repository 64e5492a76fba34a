"""The prompt as the simulator reads it: numbered passages, then the question.

The format is a contract with the prompt template, and is fixed::

    <passages>
    <passage n="1" document="handbook/returns" chunk="0" version="3">
    text
    </passage>
    </passages>
    <question>
    text
    </question>

All text and all attribute values are escaped as XML, so that retrieved text can never close its own delimiter.
"""

import html
import re
from collections.abc import Iterable
from dataclasses import dataclass

_PASSAGES = re.compile(r"<passages>(.*?)</passages>", re.DOTALL)
_PASSAGE = re.compile(r"<passage\b([^>]*)>(.*?)</passage>", re.DOTALL)
_ATTRIBUTE = re.compile(r'(\w+)="([^"]*)"')
_QUESTION = re.compile(r"<question>(.*?)</question>", re.DOTALL)


@dataclass(frozen=True, slots=True)
class Passage:
    """One numbered piece of a document, as the prompt carries it; `number` is what a citation `[n]` names."""

    number: int
    text: str
    document: str = ""
    chunk: int = 0
    version: int = 0


@dataclass(frozen=True, slots=True)
class Prompt:
    """What one question may be answered from."""

    question: str
    passages: tuple[Passage, ...] = ()


def parse_prompt(text: str) -> Prompt:
    """Read the passages and the question out of a user message.

    Total: a message without a `<question>` is a question as a whole, and one without `<passages>` has no passages.
    """
    asked = _QUESTION.search(text)
    if asked is None:
        return Prompt(text.strip())
    block = _PASSAGES.search(text)
    found = _PASSAGE.finditer(block[1]) if block else ()
    passages = (_passage(match[1], match[2], place) for place, match in enumerate(found, start=1))
    return Prompt(_plain(asked[1]), tuple(passages))


def render_prompt(prompt: Prompt) -> str:
    """Write a prompt in the fixed format; `parse_prompt` reads it back unchanged, but for blank ends of texts."""
    passages = "\n".join(_lines(prompt.passages))
    return f"<passages>\n{passages}\n</passages>\n<question>\n{html.escape(prompt.question)}\n</question>"


def _lines(passages: Iterable[Passage]) -> Iterable[str]:
    for p in passages:
        document = html.escape(p.document)
        yield f'<passage n="{p.number}" document="{document}" chunk="{p.chunk}" version="{p.version}">'
        yield html.escape(p.text)
        yield "</passage>"


def _passage(attributes: str, text: str, place: int) -> Passage:
    named = dict(_ATTRIBUTE.findall(attributes))
    return Passage(
        number=_integer(named.get("n"), place),
        text=_plain(text),
        document=_plain(named.get("document", "")),
        chunk=_integer(named.get("chunk"), 0),
        version=_integer(named.get("version"), 0),
    )


def _integer(text: str | None, otherwise: int) -> int:
    # No more digits than a number of ours has: Python refuses to read thousands of them.
    return int(text) if text is not None and re.fullmatch(r"[0-9]{1,9}", text) else otherwise


def _plain(text: str) -> str:
    return html.unescape(text).strip()
