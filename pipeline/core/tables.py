"""The mapping of tables to documents: which topics of a database's changes are read, and what their columns mean."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, model_validator

from pipeline.core.errors import ConfigurationError
from pipeline.core.names import MAX_TOPIC

PLACEHOLDER = "__debezium_unavailable_value"
"""What Debezium writes for a large value that did not change (its `unavailable.value.placeholder`)."""
MAX_COLUMNS = 64
"""The most columns that one entry may list."""
RESERVED = ("tenant", "source", "document", "title")
"""What every document can be filtered by, so that no column may have these names as a field."""
MAX_NAME = 200
"""The longest name of a column, a source or a constant tenant, in characters."""
MAX_QUERY = 10_000
"""The longest query, in characters."""

_TOPIC = re.compile(rf"[a-zA-Z0-9._-]{{1,{MAX_TOPIC}}}")


def _columns(entry: object) -> tuple[str, ...]:
    """Take one name for a list of one. Raises ValueError with the cure."""
    names = (entry,) if isinstance(entry, str) else tuple(entry) if isinstance(entry, list | tuple) else None
    if names is None or not all(isinstance(name, str) for name in names):
        raise ValueError("write a column's name, or a list of names in [ ], as text")
    wrong = next((name for name in names if not 0 < len(name) <= MAX_NAME), None)
    if wrong is not None:
        raise ValueError(f"a column's name has 1 to {MAX_NAME} characters, and {wrong[:20]!r} has {len(wrong)}")
    if len(names) > MAX_COLUMNS:
        raise ValueError(f"it lists {len(names)} columns: use {MAX_COLUMNS} at most")
    if twice := _repeated(names):
        raise ValueError(f"the column {twice!r} is listed twice: leave one out")
    return names


def _some_columns(entry: object) -> tuple[str, ...]:
    names = _columns(entry)
    if not names:
        raise ValueError("it lists no column: name one at least")
    return names


def _fields(entry: object) -> object:
    """Take columns for fields of the same names. Raises ValueError with the cure."""
    columns = _columns([*entry.values()] if isinstance(entry, dict) else entry)
    fields = entry if isinstance(entry, dict) else dict(zip(columns, columns, strict=True))
    odd = next((name for name in fields if name in RESERVED or not (name.isascii() and name.isidentifier())), None)
    if odd is not None:
        raise ValueError(
            f"{odd[:60]!r} is no name to filter by (ASCII letters, digits and '_', but not {', '.join(RESERVED)}, "
            f"which all documents have): write {{<name>: {odd[:60]}}}"
        )
    return fields


def _version(entry: object) -> object:
    if isinstance(entry, str) and entry != "lsn":
        raise ValueError(f"write lsn, or {{column: {entry}, as: integer}}, or {{column: {entry}, as: timestamp}}")
    return {} if entry == "lsn" else entry


def _reread(entry: str) -> str:
    """Check a query as far as its text tells. Raises ValueError with the cure."""
    if not re.match(r"\s*(select|with)\b", entry, re.IGNORECASE) or set(re.findall(r"\$(\d+)", entry)) != {"1"}:
        raise ValueError("write a query with one parameter, as in SELECT title, body FROM notes WHERE id = $1")
    return entry


def _tenant(entry: object) -> object:
    if isinstance(entry, str):
        raise ValueError(f"write {{column: {entry}}} for what a column holds, or {{constant: {entry}}} for all rows")
    return entry


def _table(entry: str) -> str:
    schema, _, name = entry.partition(".")
    if not (0 < len(schema) <= MAX_NAME and 0 < len(name) <= MAX_NAME):
        raise ValueError("write the table's name as in the database, <schema>.<table>, as in public.documents")
    return entry


Columns = Annotated[tuple[str, ...], BeforeValidator(_columns)]
SomeColumns = Annotated[tuple[str, ...], BeforeValidator(_some_columns)]
FieldColumns = Annotated[dict[str, str], BeforeValidator(_fields)]
Text = Annotated[str, Field(min_length=1, max_length=MAX_NAME)]
Query = Annotated[str, Field(max_length=MAX_QUERY), AfterValidator(_reread)]
TableName = Annotated[str, AfterValidator(_table)]


class _Entry(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


class Tenant(_Entry):
    """Whose a table's documents are: what a `column` says, or the same (`constant`) for all."""

    column: Text | None = None
    constant: Text | None = None

    @model_validator(mode="after")
    def _either(self) -> Tenant:
        if (self.column is None) == (self.constant is None):
            raise ValueError("write either {column: <name>} or {constant: <tenant>}")
        return self


class VersionOf(_Entry):
    """What says how new a state of a row is: the log's position (`lsn`) where no column is named, else a column.

    A column `as` integer is taken as it is; `as` timestamp it is a text of ISO 8601 with its offset from UTC, and
    becomes microseconds since the epoch. It must grow with every change of a row, and not begin anew where an id is
    deleted and inserted again: a deletion counts as one more than the state that it deletes.
    """

    column: Text | None = None
    reads: Literal["integer", "timestamp"] | None = Field(default=None, alias="as")

    @model_validator(mode="after")
    def _both(self) -> VersionOf:
        if (self.column is None) != (self.reads is None):
            raise ValueError("write lsn, or {column: <name>, as: integer}, or {column: <name>, as: timestamp}")
        return self


class Table(_Entry):
    """How the rows of one table become documents.

    `id` are columns of the table's key; several are put together. `title` and `body` join what their columns hold, by
    a space and by an empty line. `fields` are what requests may filter by, each by its name the column it is in.

    `table` is its name in the database, `<schema>.<table>`; `table_of` tells what it is where it is not given.
    `replica_identity` is what the table was altered to. With `default`, the `placeholder` always means an unchanged
    value. With `full` Debezium never needs it, so that it is a user's own text where the change bears that out.

    `reread` is a query to the source database, with one parameter, a document's id: it returns columns of the row, by
    their names here, for what a change does not tell.
    """

    source: Text
    table: TableName | None = None
    id: SomeColumns
    tenant: Annotated[Tenant, BeforeValidator(_tenant)]
    title: Columns = ()
    body: SomeColumns
    version: Annotated[VersionOf, BeforeValidator(_version)] = VersionOf()
    fields: FieldColumns = Field(default_factory=dict)
    placeholder: Text = PLACEHOLDER
    replica_identity: Literal["default", "full"] = "default"
    reread: Query | None = None

    @model_validator(mode="after")
    def _deletions_have_versions(self) -> Table:
        if self.version.column is not None and self.replica_identity != "full":
            # A deletion would tell the lsn only, which does not compare with what a column holds.
            raise ValueError(
                f"the version in the column {self.version.column!r} is not told for deletions: "
                "ALTER TABLE ... REPLICA IDENTITY FULL and write replica_identity: full, or use version: lsn"
            )
        return self


def table_of(topic: str, table: Table) -> tuple[str, str]:
    """Return the schema and the name of a table; where they are not given, they are the last two parts of its topic.

    Raises ConfigurationError where that tells neither.
    """
    schema, _, name = (table.table or ".".join(topic.split(".")[-2:])).partition(".")
    if not (schema and name):
        raise ConfigurationError(
            f"of which table {topic} tells the changes is not known: write table: <schema>.<table> in PIPELINE_TABLES"
        )
    return schema, name


class Tables(_Entry):
    """A whole checked mapping: tables by the topic that their changes are on, and topics that are known not to matter.

    No topic and no source is there twice. `slot` is the replication slot of the connector that brings the changes.
    """

    tables: dict[str, Table]
    ignored: Annotated[tuple[str, ...], Field(strict=False)] = ()
    slot: Annotated[str, Field(pattern=r"^[a-z0-9_]{1,63}$")] | None = None

    @model_validator(mode="after")
    def _topics(self) -> Tables:
        if not self.tables:
            raise ValueError("it maps no table: name one topic at least under tables, with its columns")
        every = (*self.tables, *self.ignored)
        odd = next((topic for topic in every if not _TOPIC.fullmatch(topic)), None)
        if odd is not None:
            raise ValueError(f"{odd[:60]!r} is no topic: use 1 to {MAX_TOPIC} letters, digits, '.', '_' or '-'")
        if twice := _repeated(every):
            raise ValueError(f"the topic {twice} is given twice: leave it in tables or in ignored, once")
        return self

    @model_validator(mode="after")
    def _sources(self) -> Tables:
        if twice := _repeated(table.source for table in self.tables.values()):
            # Their ids could meet, and a truncation of one would empty the other.
            topics = ", ".join(topic for topic, table in self.tables.items() if table.source == twice)
            raise ValueError(f"the source {twice!r} is that of several topics ({topics}): give each its own")
        return self


def parse_tables(data: object, origin: str) -> Tables:
    """Check a mapping read from `origin`.

    Raises ConfigurationError with one sentence that names the file, each wrong entry and what to do.
    """
    if not isinstance(data, dict):
        raise ConfigurationError(f"tables {origin}: expected a mapping with tables, and ignored if there are such")
    try:
        return Tables.model_validate(data)
    except ValidationError as error:
        problems = error.errors(include_url=False)
        wrong = "; ".join(f"{_place(problem['loc'])}: {_cure(problem)}" for problem in problems[:_TOLD])
        more = f"; and {len(problems) - _TOLD} more" if len(problems) > _TOLD else ""
        raise ConfigurationError(f"tables {origin}: {wrong}{more}") from None


_TOLD = 6
"""How many mistakes one sentence tells."""


def _place(loc: Iterable[int | str]) -> str:
    return ".".join(str(part)[:MAX_TOPIC] for part in loc) or "the file"


def _cure(problem: Mapping[str, Any]) -> str:
    match problem["type"]:
        case "extra_forbidden":
            return f"this key is not known: {_known(problem['loc'])}"
        case "missing":
            return "this key is missing: add it"
        case "model_type" | "dict_type":
            return "write keys with their values, as in {key: value}"
        case "tuple_type":
            return "write a list, as in [one, another]"
        case _:
            return str(problem["msg"]).removeprefix("Value error, ")


def _known(loc: tuple[int | str, ...]) -> str:
    """List the keys that may stand where an unknown one does."""
    models: dict[int, type[_Entry]] = {1: Tables, 3: Table}
    model = models.get(len(loc)) or (Tenant if loc[-2] == "tenant" else VersionOf)
    return "use " + ", ".join(field.alias or name for name, field in model.model_fields.items())


def _repeated(names: Iterable[str]) -> str | None:
    return next((name for name, times in Counter(names).items() if times > 1), None)
