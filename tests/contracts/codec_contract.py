"""What every Codec promises; run on the Avro codec in each of its framings."""

from __future__ import annotations

from abc import ABC, abstractmethod
from contextlib import AbstractAsyncContextManager

import pytest

from pipeline.core.errors import ConfigurationError, Reject
from pipeline.core.limits import MAX_COLLECTION_ITEMS, MAX_RECORD_BYTES
from pipeline.core.payloads import Document, Failure, Payload, Request
from pipeline.core.ports import Codec
from tests.schemas.examples import FULL, LEAST, NOUNS

SECRET = "correct horse battery staple"
REQUEST = Request(type="quick_answer", input=SECRET, metadata={SECRET: SECRET})

DOCUMENT = Document(source=SECRET, id="d", tenant="t", title="", body=SECRET, version=1)

MISFITS: dict[str, tuple[Payload, str]] = {
    "too large": (DOCUMENT.model_copy(update={"body": SECRET * 40_000}), "too_large"),
    "number too large": (DOCUMENT.model_copy(update={"version": 2**63}), "unencodable"),
    "half a character": (DOCUMENT.model_copy(update={"body": f"{SECRET}\ud800"}), "unencodable"),
    "wrong type": (DOCUMENT.model_copy(update={"version": SECRET}), "unencodable"),
    "another payload": (FULL["results"].model_copy(update={"answer": SECRET}), "unencodable"),
}
"""Payloads that are no documents, and the code of their Reject."""


async def undecodable(codec: Codec, value: bytes, noun: str = "requests") -> Reject:
    """The Reject that decoding ends in; it never shows the value."""
    with pytest.raises(Reject) as caught:
        await codec.decode(noun, NOUNS[noun], value)
    assert caught.value.reason.startswith(f"cannot decode the value as {noun}: ")
    assert SECRET not in caught.value.reason
    assert "\n" not in caught.value.reason
    assert len(caught.value.reason) < 500
    return caught.value


class CodecContract(ABC):
    """Subclass it, say how to open one that knows the schemas of this repository, and pytest runs it."""

    @abstractmethod
    def opened(self) -> AbstractAsyncContextManager[Codec]:
        """Open a codec."""

    @pytest.mark.parametrize("noun", NOUNS)
    @pytest.mark.parametrize("examples", [FULL, LEAST], ids=["full", "least"])
    async def test_what_it_encodes_it_decodes(self, noun: str, examples: dict[str, Payload]) -> None:
        """Payloads of every noun come back as they were."""
        async with self.opened() as codec:
            value = await codec.encode(noun, examples[noun])
            assert await codec.decode(noun, NOUNS[noun], value) == examples[noun]

    async def test_the_same_payload_gives_the_same_bytes(self) -> None:
        """Encoding depends on nothing but the payload."""
        async with self.opened() as one, self.opened() as other:
            assert await one.encode("requests", REQUEST) == await other.encode("requests", REQUEST)

    async def test_every_truncation_is_rejected(self) -> None:
        """A value cut anywhere, frame or body, is no shorter record."""
        async with self.opened() as codec:
            value = await codec.encode("requests", REQUEST)
            for length in range(len(value)):
                await undecodable(codec, value[:length])

    @pytest.mark.parametrize("tail", [b"\0", b"\n", b"\0" * 100])
    async def test_trailing_bytes_are_rejected(self, tail: bytes) -> None:
        """What stands behind a record is not overlooked; the reason counts it."""
        async with self.opened() as codec:
            value = await codec.encode("requests", REQUEST)
            assert f"{len(tail)} bytes are left over" in (await undecodable(codec, value + tail)).reason

    @pytest.mark.parametrize("value", [b"", b"\xc3", b"{}", b'{"type": "x"}', b"Obj\x01", b"\x01\x02", b"\xff" * 50])
    async def test_bytes_without_a_frame_are_rejected(self, value: bytes) -> None:
        """JSON, Avro container files, other magic bytes and nothing at all are no records."""
        async with self.opened() as codec:
            assert (await undecodable(codec, value)).code == "undecodable"

    async def test_a_record_of_another_noun_is_rejected(self) -> None:
        """A well-formed record on the wrong topic is named, with both nouns."""
        async with self.opened() as codec:
            value = await codec.encode("results", FULL["results"])
            rejection = await undecodable(codec, value, "prompts")
        assert rejection.code == "wrong_schema"
        assert rejection.reason.endswith("as prompts: it is a record of results (pipeline.events.Result)")

    async def test_text_that_is_not_utf8_is_rejected(self) -> None:
        """Damaged text is not repaired by guesses."""
        async with self.opened() as codec:
            value = await codec.encode("requests", REQUEST)
            damaged = value.replace(SECRET.encode()[:2], b"\xff\xfe")
            assert "not UTF-8" in (await undecodable(codec, damaged)).reason

    async def test_a_record_that_its_payload_refuses_is_rejected(self) -> None:
        """Valid Avro with an unknown lane: the reason names the field, not the value."""
        async with self.opened() as codec:
            wrong = REQUEST.model_copy(update={"lane": SECRET})
            rejection = await undecodable(codec, await codec.encode("requests", wrong))
        assert rejection.code == "invalid_payload"
        assert "its field lane is not valid: Input should be" in rejection.reason

    async def test_a_value_over_the_limit_is_rejected_unread(self) -> None:
        """The size is judged before the content."""
        async with self.opened() as codec:
            head = (await codec.encode("requests", REQUEST))[:10]
            rejection = await undecodable(codec, head + b"\0" * MAX_RECORD_BYTES)
        assert rejection.code == "too_large"

    @pytest.mark.parametrize("case", MISFITS)
    async def test_a_payload_that_does_not_fit_is_rejected(self, case: str) -> None:
        """Nothing is cut, filled in or left out to make it fit."""
        async with self.opened() as codec:
            payload, code = MISFITS[case]
            with pytest.raises(Reject) as caught:
                await codec.encode("documents", payload)
        assert caught.value.code == code
        assert caught.value.reason.startswith(f"cannot encode a {type(payload).__name__} as documents: ")
        assert SECRET not in caught.value.reason

    async def test_what_could_not_be_decoded_is_not_encoded(self) -> None:
        """A map with more items than a record may have is refused by the writer, not by the next reader."""
        labels = {str(number): "" for number in range(MAX_COLLECTION_ITEMS + 1)}
        async with self.opened() as codec:
            with pytest.raises(Reject, match="10001 items"):
                await codec.encode("failures", Failure(stage="s", code="c", reason="", failed_at_ms=0, metadata=labels))

    async def test_a_noun_without_a_schema_is_a_matter_of_configuration(self) -> None:
        """It is nobody's record that is wrong."""
        async with self.opened() as codec:
            with pytest.raises(ConfigurationError, match="no schema for tokens"):
                await codec.encode("tokens", REQUEST)
            with pytest.raises(ConfigurationError, match="no schema for tokens"):
                await codec.decode("tokens", Request, b"")
