"""`pipeline dlq` as a person meets it, on the broker in memory."""

from __future__ import annotations

import asyncio
import functools
import json
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from contextlib import aclosing, asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from typer import testing
from typer.main import get_command
from typer.testing import CliRunner, Result

from pipeline import topology, wiring
from pipeline.cli import dlq_desk, dlq_watch
from pipeline.cli.app import app
from pipeline.cli.dlq_options import stage_names, state_names
from pipeline.cli.session import OUT
from pipeline.core import headers as h
from pipeline.core.payloads import Audit, Letter
from pipeline.core.record import Outgoing
from pipeline.ops import letter_watch
from pipeline.ops.letters import LetterPorts
from tests.ops.letter_world import GRAVE, JOB, NOW, LetterWorld

SECRET = "A question of"


class Place:
    """A world, and the command line in it."""

    def __init__(self) -> None:
        self.world = LetterWorld()
        asyncio.run(self.world.create())

    def bury(self, *codes: str, **change: Any) -> list[str]:
        """Add a letter of each reason class; returns their ids."""

        async def add() -> list[str]:
            graves = [replace(GRAVE, code=code, **change) for code in codes]
            return [await self.world.bury(grave) for grave in graves]

        return asyncio.run(add())

    def invoke(self, *arguments: str, answer: str | None = None) -> Result:
        """Run `pipeline dlq`."""
        return CliRunner().invoke(app, ["dlq", *arguments], input=answer)

    def told(self, *arguments: str, code: int = 0) -> str:
        """Run it, and return what it prints to a person."""
        result = self.invoke(*arguments)
        assert code == result.exit_code, result.output
        return result.stdout if code == 0 else result.output

    def lines(self, *arguments: str) -> list[Any]:
        """Run it with --json, and return what it prints."""
        return [json.loads(line) for line in self.told(*arguments, "--json").splitlines()]

    def states(self, *ids: str) -> list[str]:
        """Tell the states of letters."""
        known = asyncio.run(self.world.letters()).states
        return [known.of_id(one).state for one in ids]


@pytest.fixture
def place(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Place]:
    """A world in which the command line works."""
    here = Place()

    @asynccontextmanager
    async def ports(_configured: object, _say: object, progress: Any, others: Sequence[str]) -> AsyncIterator[Any]:
        made: LetterPorts = here.world.ports()
        yield replace(made, progress=progress, topics={**made.topics, **{name: _other(name) for name in others}})

    monkeypatch.setattr(dlq_desk, "open_letter_ports", ports)
    monkeypatch.setattr(testing, "_get_command", _command)  # which makes all verbs anew each time
    monkeypatch.setattr(wiring, "CLOCK", lambda: NOW)
    monkeypatch.setenv("PIPELINE_DATA", str(tmp_path))
    monkeypatch.setattr(OUT, "_width", 250)
    yield here
    assert [] == here.world.readers


@functools.cache
def _command(_: object) -> object:
    return get_command(app)


def _other(name: str) -> Any:
    return replace(next(iter(LetterWorld().ports().topics.values())), topic=name, stage="", sources={})


# ------------------------------------------------------------------------------------------------ list
def test_list_counts_first_and_then_shows_the_newest(place: Place) -> None:
    """A table of counts, one of the kinds of failure with an example, and the letters."""
    ids = place.bury("model_timeout", "model_timeout", "schema")
    told = place.told("list")
    for part in ("model_timeout", "schema", "contexts/v1", "under an hour", "KeyError: 'x'", *ids):
        assert part in told
    assert "3 dead letters, from 2027-01-15 07:59:00 to 2027-01-15 07:59:00 UTC" in told
    assert SECRET not in told
    assert ids[0] not in place.told("list", "--limit", "0")


def test_a_letter_is_named_in_full_on_a_narrow_terminal(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its id is what all other verbs ask for, so it is never cut; nor is why it died. The rest waits for more room."""
    ids = place.bury("model_timeout")
    monkeypatch.setattr(OUT, "_width", 80)
    told = place.told("list")
    assert any({ids[0], "infer", "model_timeout", "open"} <= set(line.split()) for line in told.splitlines()), told


def test_list_of_nothing_is_no_error(place: Place) -> None:
    """The code is 0, as for any other list."""
    assert "no dead letters" in place.told("list")
    assert [{"letters": 0}] == [{"letters": one["letters"]} for one in place.lines("list")]


def test_list_as_json_has_the_counts_and_then_the_letters(place: Place) -> None:
    """A line for all counts, and one for each letter that is shown, with all that its head tells."""
    ids = place.bury("a", "b", "b")
    counts, *letters = place.lines("list", "--limit", "2")
    assert (3, {"b": 2, "a": 1}, {"open": 3}) == (counts["letters"], counts["by"]["reason"], counts["by"]["state"])
    assert [("infer", "b", "KeyError: 'x'")] == [
        (one["stage"], one["reason"], one["text"]) for one in counts["fingerprints"].values() if one["reason"] == "b"
    ]
    assert 2 == len(letters)
    assert {one["letter"] for one in letters} < set(ids)
    assert ("infer", "acme", "quick_answer") == tuple(letters[0][name] for name in ("stage", "tenant", "type"))


@pytest.mark.parametrize(
    "options, expected",
    [
        (["--stage", "infer"], 3),
        (["--stage", "index", "--stage", "infer"], 3),
        (["--reason", "model_*"], 2),
        (["--reason", "schema", "--reason", "model_down"], 2),
        (["--tenant", "acme", "--type", "quick_answer"], 3),
        (["--job", "job-1"], 1),
        (["--trace", "0af7651916cd43dd8448eb211c80319c"], 3),
        (["--since", "30s"], 0),
        (["--since", "2h", "--until", "2027-01-15T08:00"], 3),
        (["--state", "resolved"], 0),
    ],
)
def test_filters_are_the_same_everywhere(place: Place, options: list[str], expected: int) -> None:
    """What `list` counts is what `export` writes."""
    place.bury("model_timeout", "model_down", "schema")
    assert expected == place.lines("list", *options)[0]["letters"]
    assert expected == len(place.told("export", *options).splitlines())


@pytest.mark.parametrize(
    "options, sentence",
    [
        (["--state", "closed"], "no state is called 'closed'"),
        (["--since", "yesterday"], "--since 'yesterday' is no time"),
        (["--since", "1h", "--until", "2h"], "--since is not before --until"),
    ],
)
def test_a_filter_that_cannot_be_is_refused_in_a_sentence(place: Place, options: list[str], sentence: str) -> None:
    """With code 2, before anything is read."""
    assert sentence in place.told("list", *options, code=2)


def test_stages_and_states_are_completed() -> None:
    """For the shell."""
    assert (["infer", "index"], ["replayed", "resolved"]) == (stage_names("in"), state_names("re"))


# ------------------------------------------------------------------------------------------------ show
def test_show_masks_what_is_the_senders(place: Place) -> None:
    """Key, value and headers of senders are told by their length; what is ours is shown."""
    own = (("x-mail", b"ann@example.org"), (h.BAGGAGE, b"user=ann"), ("null", None))
    letter = asyncio.run(place.world.bury(headers=own))
    told = place.told("show", letter)
    for part in (
        letter,
        "KeyError: 'x'",
        "job-0, run 0",
        "contexts/v1",
        '"<20 characters>"',
        "<15 bytes>",
        "<8 bytes>",
    ):
        assert part in told
    for secret in (SECRET, "ann@example.org", "user=ann"):
        assert secret not in told
        assert secret not in json.dumps(place.lines("show", letter))
    open_one = place.told("show", letter, "--show-payload")
    assert all(part in open_one for part in ("A question of job-0?", "ann@example.org", "user=ann"))
    (plain,) = place.lines("show", letter, "--show-payload")
    assert "A question of job-0?" == plain["payload"]["input"]
    assert ["null", None] in plain["headers"]
    assert ["x-mail", "ann@example.org"] in plain["headers"]


def test_show_decodes_what_outsiders_sent(place: Place) -> None:
    """Job, type and tenant come from the value; its own headers are not believed, and so not shown."""

    async def add() -> str:
        forged = ((h.TENANT, b"forged@example.org"),)
        return await place.world.bury(replace(GRAVE, stage="preprocess"), replace(JOB, tenant="umbrella"), None, forged)

    (told,) = place.lines("show", asyncio.run(add()))
    assert ("quick_answer", "umbrella", "requests/v2") == (told["type"], told["tenant"], told["version"])
    assert ("quick_answer", "<20 characters>") == (told["payload"]["type"], told["payload"]["input"])
    assert "forged@example.org" not in json.dumps(told)


def test_show_of_raw_bytes_is_asked_for_twice(place: Place, tmp_path: Path) -> None:
    """They are the sender's data: a hex dump, or a file of them."""
    (letter,) = place.bury("a")
    assert "add --show-payload" in place.told("show", letter, "--raw", code=2)
    dump = place.told("show", letter, "--raw", "--show-payload")
    assert dump.startswith("00000000  c3 01 ")
    assert "stion of job-0?" in dump
    place.told("show", letter, "--show-payload", "--out", str(tmp_path / "value"))
    assert b"A question of job-0?" in (tmp_path / "value").read_bytes()
    missing = place.told("show", letter, "--show-payload", "--out", str(tmp_path / "no" / "value"), code=2)
    assert "cannot write" in missing


def test_show_tells_former_lives_and_what_was_done(place: Place) -> None:
    """A letter that came of a replay leads to the one that was replayed, and on; each act with who and why."""

    async def add() -> tuple[str, str]:
        world = place.world
        first = await world.bury(replace(GRAVE, code="first"))
        found = await (await world.letters()).find(first)
        spot = found.record.position
        entry = Letter(state="replayed", topic=spot.topic, replay="r1", at_ms=1)
        entry = entry.model_copy(update={"partition": spot.partition, "offset": spot.offset})
        value = await world.codec.encode("letters", entry)
        world.broker.append(Outgoing("p.letters", first.encode(), value, (), spot.partition))
        marks = (h.REPLAY_ID, b"r1"), (h.REPLAY_LETTER, first.encode()), (h.REPLAY_COUNT, b"1")
        return first, await world.bury(replace(GRAVE, code="second"), headers=marks)

    first, second = asyncio.run(add())
    place.told("assign", second, "--to", "bob", "--operator", "ann", "--why", "knows it")
    told = place.told("show", second)
    assert f"{first}  replayed  first at 2027-01-15 07:59:00" in told
    assert "assigned to bob  by ann: knows it" in told
    assert "letter.assigned  by ann: knows it (1 letters)" in told
    (plain,) = place.lines("show", second)
    assert [{"letter": first, "state": "replayed", "replay": "r1"}] == [
        {name: one[name] for name in ("letter", "state", "replay")} for one in plain["former"]
    ]
    assert (1, "assigned", "bob") == (plain["replays"], plain["done"][0]["state"], plain["assignee"])


def test_show_of_what_cannot_be_decoded_says_why(place: Place) -> None:
    """Junk, nothing, and headers that would steer a terminal: all is shown as far as it goes."""
    place.world.put("p.infer.dlq", (("evil\x1b[2J", b"\x1b[2J\xff"),), b"junk")
    place.world.put("p.infer.dlq", (), None)
    told = place.told("show", "p.infer.dlq/0/0", "--show-payload")
    assert "it begins with 6A 75" in told
    assert "\x1b[2J" not in told
    assert "its value is null" in place.told("show", "p.infer.dlq/0/1")


def test_show_of_a_letter_that_is_not_there_is_2(place: Place) -> None:
    """In a sentence."""
    for name in ("9b2f7c1e-5d0a-5c55-9d0c-0f6f6a1f6e51", "p.infer.dlq/0/7", "nonsense"):
        assert "letter" in place.told("show", name, code=2)


def test_letters_of_others_are_read(place: Place) -> None:
    """A topic of another family, named by hand: what its headers tell is shown, and nobody can decode it."""
    asyncio.run(place.world.broker.create_topics([_spec("orders-dlt")]))
    head = (("kafka_dlt-original-topic", b"orders"), ("kafka_dlt-exception-message", b"no such order"))
    place.world.put("orders-dlt", head, b"{}")
    told = place.told("show", "orders-dlt/0/0", "--topic", "orders-dlt")
    assert "no such order" in told
    assert "others (spring)" in told
    assert "no stage here reads what it was" in told
    assert 1 == place.lines("list", "--topic", "orders-dlt")[0]["by"]["family"]["spring"]


def _spec(name: str) -> Any:
    return replace(next(iter(topology.topic_specs("p", 1))), name=name)


# ------------------------------------------------------------------------------------------------ export
def test_export_is_masked_unless_asked(place: Place, tmp_path: Path) -> None:
    """JSON lines to a file or to standard output; with --show-payload the bytes in base64."""
    ids = place.bury("a", "b", "c")
    place.told("export", "--limit", "2", "--out", str(tmp_path / "dead.jsonl"))
    lines = [json.loads(line) for line in (tmp_path / "dead.jsonl").read_text().splitlines()]
    assert (2, {True}) == (len(lines), {one["masked"] for one in lines})
    assert {one["letter"] for one in lines} < set(ids)
    assert ("<5 bytes>", "p.infer.dlq") == (lines[0]["key"], lines[0]["topic"])
    full = [json.loads(line) for line in place.told("export", "--show-payload").splitlines()]
    assert {"YSBrZXk="} == {one["key"] for one in full}
    assert [h.CE_ID, "am9iLTA="] in full[0]["headers"]
    assert "cannot write" in place.told("export", "--out", str(tmp_path), code=2)


# ------------------------------------------------------------------------------------------------ what is done
def test_letters_are_worked_on_by_name(place: Place) -> None:
    """Assigned, resolved, reopened; what cannot be done is said, and the code is 1 where nothing was done."""
    first, second = place.bury("a", "b")
    assert "2 dead letters assigned to bob" in place.told("assign", first, second, "--to", "bob")
    assert "1 dead letter resolved" in place.told("resolve", first, "--why", "done by hand")
    assert ["resolved", "assigned"] == place.states(first, second)
    refused = place.invoke("resolve", first)
    assert (1, True) == (refused.exit_code, "1 left as they were: it is resolved already" in refused.stdout)
    (told,) = place.lines("reopen", first, second)
    assert {"move": "reopen", "letters": 2, "refused": {}} == told
    assert ["open", "open"] == place.states(first, second)


def test_by_a_filter_a_person_is_asked(place: Place) -> None:
    """With the number of letters; a no leaves all as it was, --yes is not asked."""
    ids = place.bury("a", "b", "b")
    asked = place.invoke("resolve", "--reason", "b", answer="n\n")
    assert (1, True) == (asked.exit_code, "2 dead letters: resolve them?" in asked.stderr)
    assert ["open"] * 3 == place.states(*ids)
    assert 0 == place.invoke("resolve", "--reason", "b", answer="y\n").exit_code
    assert ["open", "resolved", "resolved"] == place.states(*ids)
    place.told("assign", "--reason", "a", "--to", "ann", "--yes", "--why", "hers")
    assert ["assigned"] == place.states(ids[0])
    audits = [
        asyncio.run(place.world.codec.decode("audit", Audit, one.value or b""))
        for one in place.world.broker.records("p.audit")
    ]
    assert ["--reason b", "--reason a"] == [one.details["scope"] for one in audits]


@pytest.mark.parametrize(
    "arguments",
    [
        ("resolve",),
        ("resolve", "9b2f7c1e-5d0a-5c55-9d0c-0f6f6a1f6e51", "--stage", "infer"),
        ("assign", "--stage", "infer", "--to", " "),
        ("purge", "--stage", "infer", "--yes"),
        ("purge", "--stage", "infer", "--why", "old"),
        ("resolve", "nonsense"),
    ],
)
def test_misuse_is_2_and_changes_nothing(place: Place, arguments: tuple[str, ...]) -> None:
    """No letters or two ways to name them, nobody to assign to, a purge without a reason or a yes."""
    place.bury("a")
    assert "pipeline: " in place.told(*arguments, code=2)
    assert [] == list(place.world.broker.records("p.letters"))


def test_purge_deletes_and_says_what_stays(place: Place) -> None:
    """Letters behind others stay on disk until those go."""
    ids = place.bury("a", "a", "a", "a", "a", "a")
    told = place.told("purge", ids[0], ids[4], "--why", "of no use", "--yes")
    assert "2 dead letters purged" in told
    assert "1 deleted from the log; 1 stay on disk until those before them go" in told
    assert "it is purged, and its record is deleted" in place.invoke("reopen", ids[4]).stdout
    (plain,) = place.lines("purge", "--stage", "infer", "--why", "all", "--yes")
    assert (4, 5, 0) == (plain["letters"], plain["deleted"], plain["waiting"])
    assert [] == list(place.world.broker.records("p.infer.dlq"))


# ------------------------------------------------------------------------------------------------ watch
def test_watch_follows_what_comes(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    """A line for each new letter that is meant, and none for those that were there."""
    place.bury("old")
    _after_the_snapshot(monkeypatch, lambda: place.world.bury(replace(GRAVE, code="new")))
    told = place.told("watch", "--limit", "1", "--for", "20s")
    assert ("new" in told, "old" in told, "job-1" in told) == (True, False, True)


def test_watch_as_json_tells_what_the_value_does(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    """A JSON line for each."""
    _after_the_snapshot(monkeypatch, lambda: place.world.bury(replace(GRAVE, code="newer", stage="preprocess")))
    (plain,) = place.lines("watch", "--limit", "1", "--for", "20s")
    assert ("newer", "acme") == (plain["reason"], plain["tenant"])


def test_watch_ends_when_it_is_told_to(place: Place) -> None:
    """After a time, with code 0; a time that is none is refused."""
    assert "" == place.told("watch", "--for", "0.1s", "--json")
    assert "--for 'soon' is no length of time" in place.told("watch", "--for", "soon", code=2)


def _after_the_snapshot(monkeypatch: pytest.MonkeyPatch, act: Callable[[], Awaitable[object]]) -> None:
    """Do something as soon as the watch has begun."""
    from_there = letter_watch.watch

    async def watched(*given: Any) -> AsyncIterator[Any]:
        async with aclosing(from_there(*given)) as batches:
            yield await anext(batches)
            await act()
            async for batch in batches:
                yield batch

    monkeypatch.setattr(dlq_watch, "watch", watched)
