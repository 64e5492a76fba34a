"""Every recorded change event, through the decoder: what each file gives, record by record."""

from __future__ import annotations

import hashlib

import pytest

from pipeline.core.payloads import Document, Nothing, Payload
from pipeline.core.tables import parse_tables
from pipeline.wire.debezium import ChangeDecoder
from tests.wire.captured import FOLDER, AvroShelf, captured


def _table(source: str, identity: str) -> dict[str, object]:
    columns = {"id": "id", "tenant": {"column": "tenant"}, "title": "title", "body": "body", "fields": ["lang"]}
    return {"source": source, **columns, "replica_identity": identity}


TABLES = parse_tables(
    {
        "tables": {
            "app.public.documents": _table("full", "full"),
            "app.public.documents_default_identity": _table("default", "default"),
            "apps.public.documents": _table("schemas", "full"),
            "appu.public.documents": _table("unwrapped", "full"),
            "cdc_avro.public.documents": _table("avro", "full"),
        },
        "ignored": ["app.transaction", "app.message"],
    },
    "tables.yaml",
)

MARK = Nothing(why="the topic app.transaction is among those that PIPELINE_TABLES ignores")
MESSAGE = Nothing(why="the topic app.message is among those that PIPELINE_TABLES ignores")
TOMBSTONE = Nothing(why="a tombstone: the deletion before it says the same")

LARGE = "".join(hashlib.md5(str(number).encode()).hexdigest() for number in range(1, 301))
"""The body of 9,600 characters that does not compress, so that PostgreSQL keeps it out of line."""
OPEN = "We are open from 9 to 17 on weekdays."
WINTER = "Opening hours (winter)"
GOODS = "Goods may be returned within 30 days."
ODD = ("Résumé naïve – 日本語 🚀", "Unicode body: ß ñ é 你好 “quoted” \\ backslash")


def _row(
    source: str, name: str, told: tuple[str, str, str], when: tuple[int, int], **more: str | bool | dict[str, str]
) -> Document:
    """A document: `told` are tenant, title and body, `when` are the lsn and the commit's time."""
    tenant, title, body = told
    known = {"source": source, "id": name, "tenant": tenant, "title": title, "body": body}
    return Document.model_validate({**known, "version": when[0], "committed_at_ms": when[1], **more})


def _gone(source: str, name: str, tenant: str, when: tuple[int, int]) -> Document:
    return _row(source, name, (tenant, "", ""), when, deleted=True)


def _emptied(source: str, when: tuple[int, int]) -> Document:
    return _row(source, "", ("", "", ""), when, deleted=True, emptied=True)


def _snapshot(source: str, when: tuple[int, int]) -> list[Payload]:
    return [
        _row(source, "doc-0001", ("acme", "Opening hours", OPEN), when),
        _row(source, "doc-0002", ("acme", *ODD), when),
        _row(source, "doc-0003", ("globex", "", ""), when),
        _row(source, "doc-0004", ("globex", "Large body", LARGE), when),
        _row(source, "doc-0005", ("initech", "", ""), when),
    ]


def _edits(source: str, times: list[tuple[int, int]], *, tombstones: bool) -> list[Payload]:
    """An insert, an update, a deletion and a change of a key."""
    inserted, updated, deleted, moved = times
    after = [TOMBSTONE] * tombstones
    return [
        _row(source, "doc-0010", ("acme", "Return policy", GOODS), inserted),
        _row(source, "doc-0001", ("acme", WINTER, OPEN), updated),
        _gone(source, "doc-0010", "acme", deleted),
        *after,
        _gone(source, "doc-0005", "initech", moved),
        *after,
        _row(source, "doc-0020", ("initech", "", ""), moved, former="doc-0005"),
    ]


FIRST = (26547784, 1795223764558)
MIXED = 1795224030397
ALTERED = 1795224420333
HOURS = "Opening hours 2"
JSON_TIMES = [
    (26778088, 1795224360101),
    (26778344, 1795224360213),
    (26778632, 1795224360315),
    (26778824, 1795224360381),
]
AVRO_TIMES = [
    (33703840, 1795224855672),
    (33704096, 1795224855715),
    (33704384, 1795224855758),
    (33704576, 1795224855796),
]

EXPECTED: dict[str, list[Payload]] = {
    "01-snapshot.jsonl": [*_snapshot("full", FIRST), *_snapshot("default", FIRST)],
    "02-insert.jsonl": [
        MARK,
        _row("full", "doc-0010", ("acme", "Return policy", GOODS), (26547880, 1795223898836)),
        MARK,
    ],
    "03-update.jsonl": [
        MARK,
        _row(
            "full",
            "doc-0001",
            ("acme", WINTER, "We are open from 10 to 16 on weekdays."),
            (26548192, 1795223907183),
        ),
        MARK,
    ],
    "04-update-toast-unchanged.full-identity.jsonl": [
        _row("full", "doc-0004", ("globex", "Large body, new title", LARGE), (26548536, 1795223917221)),
        MARK,
        MARK,
    ],
    "05-update-toast-unchanged.default-identity.jsonl": [
        MARK,
        _row(
            "default",
            "doc-0004",
            ("globex", "Large body, new title", ""),
            (26558448, 1795223926190),
            body_kept=True,
        ),
        MARK,
    ],
    "06-delete.full-identity.jsonl": [
        _gone("full", "doc-0010", "acme", (26558888, 1795223932628)),
        MARK,
        TOMBSTONE,
        MARK,
    ],
    "07-delete.default-identity.jsonl": [
        MARK,
        _gone("default", "doc-0001", "", (26559080, 1795223941037)),
        TOMBSTONE,
        MARK,
    ],
    "08-primary-key-change.jsonl": [
        MARK,
        _gone("full", "doc-0005", "initech", (26559256, 1795223948195)),
        TOMBSTONE,
        _row("full", "doc-0020", ("initech", "", ""), (26559256, 1795223948195), former="doc-0005"),
        MARK,
    ],
    "09-primary-key-change-toast.default-identity.jsonl": [
        MARK,
        _gone("default", "doc-0004", "", (26559568, 1795223957590)),
        TOMBSTONE,
        _row(
            "default",
            "doc-0021",
            ("globex", "Large body, new title", ""),
            (26559568, 1795223957590),
            body_kept=True,
            former="doc-0004",
        ),
        MARK,
    ],
    "11-transaction-mixed.jsonl": [
        MARK,
        _row("full", "doc-0030", ("acme", "First", "v1"), (26755152, MIXED)),
        _gone("full", "bulk-0001", "tenant-1", (26755816, MIXED)),
        TOMBSTONE,
        _row("full", "doc-0030", ("acme", "First", "v2"), (26755312, MIXED)),
        _row("full", "doc-0030", ("acme", "First", "v3"), (26755448, MIXED)),
        _row("default", "doc-0030", ("acme", "First", "v1"), (26755584, MIXED)),
        MARK,
    ],
    "12-truncate.jsonl": [MARK, _emptied("full", (26759168, 1795224043821)), MARK],
    "13-same-key-reinserted.jsonl": [
        MARK,
        _row("full", "doc-0001", ("acme", "Opening hours", "Back again."), (26759584, 1795224052876)),
        MARK,
    ],
    "14-schema-change.jsonl": [
        _row("full", "doc-0001", ("acme", HOURS, "Back again."), (26785344, ALTERED), fields={"lang": "en"}),
        _row("full", "doc-0050", ("acme", "New column", "v1"), (26785168, ALTERED), fields={"lang": "nl"}),
        _row("full", "doc-0050", ("acme", "New column gone", "v1"), (26786640, ALTERED)),
        MARK,
        MARK,
    ],
    "15-no-op-update.jsonl": [
        MARK,
        _row("full", "doc-0001", ("acme", HOURS, "Back again."), (26787184, 1795224429703)),
        MARK,
    ],
    # The update tells the whole row before it, so nothing was left out, and a user wrote this.
    "16-placeholder-literal.jsonl": [
        _row("full", "doc-0001", ("acme", HOURS, "__debezium_unavailable_value"), (26787600, 1795224438421)),
        MARK,
        MARK,
    ],
    "17-logical-message.jsonl": [MESSAGE],
    "19-json-with-schema.jsonl": [
        *_snapshot("schemas", (26777856, 1795224321340)),
        *_edits("schemas", JSON_TIMES, tombstones=True),
        _emptied("schemas", (26781984, 1795224363412)),
    ],
    "20-unwrapped.jsonl": [
        *_snapshot("unwrapped", (26777800, 1795224321334)),
        *_edits("unwrapped", JSON_TIMES, tombstones=False),
    ],
    "21-avro.jsonl": [
        *_snapshot("avro", (33703800, 1795224855390)),
        *_edits("avro", AVRO_TIMES, tombstones=True),
        _row("avro", "doc-0001", ("acme", WINTER, OPEN), (33707176, 1795224855882), fields={"lang": "nl"}),
        _emptied("avro", (33711736, 1795224855971)),
    ],
}


async def decoded(name: str) -> list[Payload]:
    """Decode all records of a file."""
    decoder = ChangeDecoder(TABLES, AvroShelf())
    return [await decoder.decode(record, record.topic) for record in captured(name)]


@pytest.mark.parametrize("name", EXPECTED)
async def test_a_recorded_file_gives_exactly_this(name: str) -> None:
    """Every record of the file becomes this document, or nothing for this reason."""
    assert EXPECTED[name] == await decoded(name)


async def test_a_transaction_of_a_thousand_rows() -> None:
    """Each of the 1,000 rows is a document, with versions in the order of the statement; the marks are nothing."""
    first, *rows, last = await decoded("10-transaction-1000.jsonl.gz")
    documents = sorted((row for row in rows if isinstance(row, Document)), key=lambda row: row.version)
    expected = [
        (f"bulk-{n:04}", f"tenant-{n % 7}", f"Bulk {n}", f"Body of bulk document {n}", 1795224019958)
        for n in range(1, 1001)
    ]
    assert expected == [(row.id, row.tenant, row.title, row.body, row.committed_at_ms) for row in documents]
    assert len({row.version for row in documents}) == 1000
    assert first == last == MARK


async def test_what_was_sent_again_after_a_crash_is_the_same_again() -> None:
    """The 111 repeats give documents equal to the first ones: a repeat changes nothing."""
    documents = await decoded("18-duplicates-after-crash.jsonl.gz")
    assert all(isinstance(document, Document) and document.title == "t" for document in documents)
    distinct = {document.model_dump_json() for document in documents}
    assert (232, 232 - 111) == (len(documents), len(distinct))
    assert len({(document.id, document.version) for document in documents if isinstance(document, Document)}) == 121


def test_every_recorded_file_is_tested() -> None:
    """A file that is added to the folder needs an expectation."""
    apart = {"10-transaction-1000.jsonl.gz", "18-duplicates-after-crash.jsonl.gz"}
    assert {path.name for path in FOLDER.glob("*.jsonl*")} == EXPECTED.keys() | apart


async def test_messages_and_marks_are_nothing_on_any_topic() -> None:
    """A connector that routes them to a table's topic does no harm."""
    decoder = ChangeDecoder(TABLES)
    records = [*captured("17-logical-message.jsonl"), captured("02-insert.jsonl")[0], captured("02-insert.jsonl")[2]]
    expected = [
        Nothing(why="a message that somebody wrote into the database's log"),
        Nothing(why="a mark of a transaction"),
        Nothing(why="a mark of a transaction"),
    ]
    assert expected == [await decoder.decode(record, "app.public.documents") for record in records]


async def test_a_schema_is_asked_for_once() -> None:
    """Fourteen Avro records with keys ask for three schemas."""
    shelf = AvroShelf()
    decoder = ChangeDecoder(TABLES, shelf)
    for record in captured("21-avro.jsonl"):
        await decoder.decode(record, record.topic)
    assert shelf.asked == 3
