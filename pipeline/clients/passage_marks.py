"""What the index knows of each document, and what has to be written next: values and one decision, without I/O.

A *mark* is a point without vectors: one for each document, also for a removed one, and one for each source that was
emptied. A *generation* is one state of one document; its stamp is a digest of all of it, so chunks that carry the same
stamp are pieces of the same state. Every write is conditional on the stamps that were read before (compare and set),
never on an order of versions, which Qdrant would compare as floats: the order is decided here, in whole numbers.

Why any order of calls, of any number of workers, killed anywhere, ends in the newest version (each call is repeated
until it ends, as records are that are not committed): a call reads, decides and writes until it reads that nothing is
left to do. (1) The mark moves by compare and set, and only upwards, so its states are one chain. (2) A chunk of the
newest state is changed only by who has read that very stamp, and whoever knows of an older state leaves it alone. (3) A
late insert of a chunk that is not there succeeds in Qdrant, but who made it reads the mark afterwards, sees that it is
newer, and removes it: he, or the repeat of his call. (4) A later state knows how many chunks there may be (`high`): the
next mark in the chain takes over the count of the one before until it has read that they are gone.

It rests on each request being carried out, or lost, before the repeat of its call ends. One that Qdrant carries out
later (its caller gave up after 20 s, and the repeat comes 10 s after that) may insert a chunk of an older state, which
nobody cleans up until the document changes: its stamp is not that of the mark, by which an audit can tell.

A document has two ages: that of its title, tenant and fields (`version`), and that of its text (`texted`), which is
older where a change did not tell the body. So a body that comes late still goes below the newer title.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from hashlib import sha256
from typing import Any, Literal

from pipeline.core.payloads import Document

Age = tuple[int, int]
"""The version of a state and of its text; a later state of a document is greater."""
Layout = tuple[tuple[int, str | None], ...]
"""Of each chunk how much of it repeats others, and the white space before the rest: by it they give the body back."""


_spelt = json.JSONEncoder(sort_keys=True).encode  # `json.dumps` makes one for each call


def digest(*parts: Any) -> str:
    """Return a digest of plain values."""
    return sha256(_spelt(parts).encode()).hexdigest()[:32]


def hash_of(title: str, text: str, model: str) -> str:
    """Return the content hash of a chunk: of all that is embedded, and by what."""
    return digest(model, title, text)


def content_of(title: str, texts: Sequence[str], model: str) -> str:
    """Return the content hash of a whole document, as its mark has it; `model` is `Collection.embedded_by`."""
    return digest([hash_of(title, text, model) for text in texts])


@dataclass(frozen=True, slots=True)
class Withheld:
    """The text of a document that was removed, for one that takes it over under a new id. `ms` is by our clock."""

    version: int
    ms: int
    texts: Sequence[str]
    layout: Layout = ()


@dataclass(frozen=True, slots=True)
class Mark:
    """One state of one document. `high` bounds the numbers of chunks that there may be, `removed_ms` is by our clock.

    `content` is a digest of the chunks' hashes, in order, and `body` one of their texts alone; `stamp` is the digest of
    the whole state, without what may differ from one write of it to another.
    """

    source: str
    document: str
    tenant: str
    title: str
    fields: Mapping[str, str]
    version: int
    texted: int
    content: str
    body: str
    chunks: int
    committed_at_ms: int | None = None
    deleted: bool = False
    high: int = field(default=0, compare=False)
    removed_ms: int | None = field(default=None, compare=False)
    withheld: Withheld | None = field(default=None, compare=False)
    layout: Layout = field(default=(), compare=False)
    stamp: str = ""

    @property
    def age(self) -> Age:
        """How new the state is."""
        return self.version, self.texted

    def stamped(self) -> str:
        """Make the stamp."""
        told = (self.source, self.document, self.tenant, self.title, self.fields, self.committed_at_ms)
        return digest(*told, *self.age, self.content, self.body, self.chunks, self.deleted)


class Hashes:
    """The content hashes of one call, by one way of embedding; each text is hashed once."""

    def __init__(self, model: str) -> None:
        """Hash for what `model` embeds."""
        self._model = model
        self._known: dict[tuple[str, str | tuple[str, ...]], str] = {}

    def of(self, title: str, texts: Sequence[str]) -> list[str]:
        """Return the hashes of texts under a title, in order."""
        return [self._known.get((title, text)) or self._new(title, text) for text in texts]

    def whole(self, texts: Sequence[str]) -> str:
        """Return the digest of all texts together."""
        return self._digest("texts", texts)

    def content(self, hashes: Sequence[str]) -> str:
        """Return the digest of all hashes together."""
        return self._digest("hashes", hashes)

    def _digest(self, kind: str, parts: Sequence[str]) -> str:
        key = kind, tuple(parts)
        return self._known.get(key) or self._known.setdefault(key, digest(parts))

    def _new(self, title: str, text: str) -> str:
        made = self._known[title, text] = hash_of(title, text, self._model)
        return made


@dataclass(frozen=True, slots=True)
class Held:
    """A chunk as the index holds it; its text only where that was asked for."""

    number: int
    hash: str
    stamp: str
    body: str
    age: Age
    text: str | None = None


@dataclass(frozen=True, slots=True)
class State:
    """What was read of a document. `emptied` is up to which version its source was, `former` the mark it comes from."""

    emptied: int | None = None
    mark: Mark | None = None
    held: Mapping[int, Held] = field(default_factory=dict)
    former: Mark | None = None


@dataclass(frozen=True, slots=True)
class Change:
    """One call: what is to become of a document. `texts` are its chunks; None where the body is not told."""

    kind: Literal["replace", "keep", "remove"]
    document: Document
    texts: Sequence[str] = ()
    layout: Layout = ()


@dataclass(frozen=True, slots=True)
class Step:
    """What is to be written next, if anything; the stamps say what was read at each place.

    `stale`: the call has come too late, and only cleans up. `lost`: it needs a text that is not known. `number` is how
    many chunks the document is to have, and `kept` those of them that are there as they should be.
    """

    stale: bool = False
    lost: bool = False
    mark: Mark | None = None
    texts: Sequence[str] = ()
    hashes: Sequence[str] = ()
    write: Sequence[int] = ()
    kept: Sequence[int] = ()
    raised: Mapping[str, Sequence[int]] = field(default_factory=dict)
    surplus: Mapping[str, Sequence[int]] = field(default_factory=dict)
    expected: frozenset[str] = frozenset()
    old_mark: str | None = None
    new_mark: bool = False
    drop_mark: bool = False

    @property
    def idle(self) -> bool:
        """Whether nothing is left to do."""
        return not (self.new_mark or self.drop_mark or self.write or self.raised or self.surplus)


def decide(state: State, change: Change, hashes: Hashes, now_ms: int) -> Step:
    """Say what is to be written next, now that `state` was read. `now_ms` is our clock."""
    document, emptied = change.document, state.emptied
    # What a source has emptied is gone; its mark may not have gone yet.
    mark = state.mark if state.mark and not _emptied(state.mark.version, emptied) else None
    if _emptied(document.version, emptied) or (mark and _late(change, mark)):
        return _clean_up(state, mark)
    told = _texts(state, mark, change)
    if told is None:
        return Step(lost=True)
    texts, layout = told
    made, hashed = _made(change, mark, texts, hashes)
    made = replace(made, **_carried(state, mark, made, now_ms), layout=layout, stamp=made.stamped())
    step = _towards(state, made, texts, hashed)
    if change.kind == "keep" and step.new_mark:
        # Its mark has to be there first: chunks that were raised for a mark that lost its place would be held for newer
        # than they are, and who raised them could not end what he began, as he has no text of his own.
        return replace(step, write=(), raised={}, surplus={}, expected=frozenset())
    return step


def _emptied(version: int, emptied: int | None) -> bool:
    return emptied is not None and version <= emptied


def _late(change: Change, mark: Mark) -> bool:
    """Whether a change comes after a newer one. What is removed stays so against other states of the same version."""
    version = change.document.version
    if mark.deleted:
        return version < mark.version or (version == mark.version and change.kind != "remove")
    if change.kind == "replace":  # its text may still be the newest, and the call that wrote it may not have ended
        return version < mark.texted
    return version < mark.version


def _texts(state: State, mark: Mark | None, change: Change) -> tuple[Sequence[str], Layout] | None:
    if change.kind != "keep":
        return change.texts, change.layout
    former, version = state.former, change.document.version
    if mark and not mark.deleted:
        stored = _stored(state, mark)
        if stored is not None or mark.version != version:
            return None if stored is None else (stored, mark.layout)
    if former is None or former.withheld is None or _emptied(former.withheld.version, state.emptied):
        return None
    # A former document that is still there may not have come to its last text yet; its removal tells that it has.
    over = former.withheld.version == version or (former.deleted and former.version <= version)
    return (former.withheld.texts, former.withheld.layout) if over else None


def _stored(state: State, mark: Mark) -> Sequence[str] | None:
    """Return the text that a mark stands for, where all pieces of it are there."""
    held = [state.held.get(number) for number in range(mark.chunks)]
    texts = [one.text for one in held if one and one.body == mark.body and one.text is not None]
    return texts if len(texts) == mark.chunks else None


def _made(change: Change, mark: Mark | None, texts: Sequence[str], hashes: Hashes) -> tuple[Mark, Sequence[str]]:
    """Make the state that is wanted, with the hashes of its chunks."""
    told, version = change.document, change.document.version
    if mark and version < mark.version:  # a body that comes below a newer title
        tenant, title, fields, committed = mark.tenant, mark.title, mark.fields, mark.committed_at_ms
    else:
        tenant, title, fields, committed = told.tenant, told.title, told.fields, told.committed_at_ms
    if change.kind == "remove":
        tenant, title, fields = tenant or (mark.tenant if mark else ""), "", {}
    known = mark.texted if mark and not mark.deleted else version
    hashed = hashes.of(title, texts)
    made = Mark(
        source=told.source,
        document=told.id,
        tenant=tenant,
        title=title,
        fields=dict(fields),
        version=max(version, mark.version) if mark else version,
        texted=known if change.kind == "keep" else version,
        content=hashes.content(hashed),
        body=hashes.whole(texts),
        chunks=len(texts),
        committed_at_ms=committed,
        deleted=change.kind == "remove",
    )
    return made, hashed


def _carried(state: State, mark: Mark | None, made: Mark, now_ms: int) -> dict[str, Any]:
    """Return what a new mark takes over from the one before it."""
    before = state.mark.chunks if state.mark else 0
    withheld = mark.withheld if mark else None
    if mark and made.deleted and not mark.deleted:
        texts = _stored(state, mark)
        withheld = Withheld(made.version, now_ms, texts, mark.layout) if texts else None
    return {
        "high": max([made.chunks, before, *(number + 1 for number in state.held)]),
        "removed_ms": now_ms if made.deleted else None,
        "withheld": withheld,
    }


def _towards(state: State, made: Mark, texts: Sequence[str], hashes: Sequence[str]) -> Step:
    """Say what is missing of a state."""
    stamp, old = made.stamp, state.mark.stamp if state.mark else None
    write, kept, raised = list[int](), list[int](), dict[str, list[int]]()
    for number, wanted in enumerate(hashes):
        held = state.held.get(number)
        if held is None or (held.hash != wanted and held.age <= made.age):
            write.append(number)
        elif held.stamp == stamp or held.age > made.age:  # of a newer state that is being written: not ours to touch
            kept.append(number)
        else:
            raised.setdefault(held.stamp, []).append(number)
    return Step(
        mark=made,
        texts=texts,
        hashes=hashes,
        write=write,
        kept=kept,
        raised=raised,
        surplus=_grouped([one for one in state.held.values() if one.number >= made.chunks and one.age <= made.age]),
        expected=frozenset(state.held[number].stamp for number in write if number in state.held),
        old_mark=old,
        new_mark=old != stamp,
    )


def _clean_up(state: State, mark: Mark | None) -> Step:
    """Say what is left of older states: who wrote it may have been stopped before it could clean up after itself."""
    gone = [one for one in state.held.values() if _emptied(one.age[0], state.emptied) or (mark and _left(one, mark))]
    drop = state.mark is not None and mark is None
    return Step(
        stale=True,
        mark=state.mark,
        surplus=_grouped(gone),
        old_mark=state.mark.stamp if state.mark else None,
        drop_mark=drop,
    )


def _left(held: Held, mark: Mark) -> bool:
    # Of the mark's own age may be the same version, cut anew, on its way: that is for its own call to clean up.
    return held.number >= mark.chunks and (held.age < mark.age or (mark.deleted and held.age == mark.age))


def _grouped(held: Sequence[Held]) -> Mapping[str, Sequence[int]]:
    groups: dict[str, list[int]] = {}
    for one in held:
        groups.setdefault(one.stamp, []).append(one.number)
    return groups
