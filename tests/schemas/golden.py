"""Golden events: for every version of every schema, records as its writers wrote them. They are kept for ever.

`python -m tests.schemas.golden` makes them for each newest version that has none; name nouns to make only theirs. An
existing file is never written again: it stands for records that lie in topics and can no longer be changed. For each
of `examples.FULL` and `examples.LEAST` there is `<noun>/v<n>-<name>.avro` (single-object encoding), `.confluent.avro`
(the schema has id `CONFLUENT_ID` in its registry) and `.json`: what both must decode to.
"""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

from pipeline.core.payloads import Payload
from pipeline.wire.codec import AvroCodec
from pipeline.wire.schemas import GOLDEN, Schemas, Version
from tests.schemas.examples import DIRECTORY, FULL, LEAST, SCHEMAS

FOLDER = DIRECTORY / GOLDEN
CONFLUENT_ID = 1
EXAMPLES = {"full": FULL, "least": LEAST}


class OneSchema:
    """A registry that knows one schema, under `CONFLUENT_ID`."""

    def __init__(self, text: str) -> None:
        self._text = text

    async def schema(self, schema_id: int) -> str:
        assert schema_id == CONFLUENT_ID
        return self._text

    async def id_of(self, noun: str, schema: str) -> int:
        assert schema == self._text, noun
        return CONFLUENT_ID

    async def check(self) -> None:
        """Its ids mean what they did."""


class Golden(NamedTuple):
    """One golden event: its version, the files of both framings, and the file of what they decode to."""

    version: Version
    single_object: Path
    confluent: Path
    expected: Path


def golden_events(schemas: Schemas = SCHEMAS, folder: Path = FOLDER) -> Iterator[Golden]:
    """Yield the golden events that there must be: every example of every version of every noun."""
    for noun in schemas.nouns:
        for version in schemas.versions(noun):
            for name in EXAMPLES:
                stem = folder / noun / f"v{version.number}-{name}"
                paths = (stem.with_suffix(suffix) for suffix in (".avro", ".confluent.avro", ".json"))
                yield Golden(version, *paths)


def make(nouns: Iterable[str], schemas: Schemas = SCHEMAS, folder: Path = FOLDER) -> list[Path]:
    """Write the golden events of the newest version of each noun. Raises FileExistsError rather than overwrite one."""
    wanted = [schemas.newest(noun) for noun in nouns]
    written = []
    for golden in golden_events(schemas, folder):
        if golden.version in wanted:
            name = golden.expected.stem.partition("-")[2]
            written += _write(golden, schemas, EXAMPLES[name][golden.version.noun])
    return written


def missing(schemas: Schemas = SCHEMAS, folder: Path = FOLDER) -> list[str]:
    """The nouns whose newest version has no golden event."""
    lacking = {golden.version for golden in golden_events(schemas, folder) if not golden.expected.exists()}
    return [noun for noun in schemas.nouns if schemas.newest(noun) in lacking]


def _write(golden: Golden, schemas: Schemas, payload: Payload) -> list[Path]:
    noun = golden.version.noun
    registry = OneSchema(golden.version.schema.text)
    contents = {
        golden.single_object: asyncio.run(AvroCodec(schemas).encode(noun, payload)),
        golden.confluent: asyncio.run(AvroCodec(schemas, registry).encode(noun, payload)),
        golden.expected: (json.dumps(payload.model_dump(mode="json"), indent=2, ensure_ascii=False) + "\n").encode(),
    }
    golden.expected.parent.mkdir(parents=True, exist_ok=True)
    for path, content in contents.items():
        with path.open("xb") as file:
            file.write(content)
    return list(contents)


def main(nouns: list[str]) -> int:
    """Make the golden events that are asked for, or all that are missing, and name them."""
    try:
        written = make(nouns or missing())
    except FileExistsError as error:
        sys.stderr.write(f"{error.filename} stands for records that can no longer be changed: add a new version.\n")
        return 1
    sys.stdout.writelines(f"{path}\n" for path in written)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
