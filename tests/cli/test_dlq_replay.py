"""`pipeline dlq replay` as a person meets it, on a broker in memory."""

from __future__ import annotations

import asyncio
import json
import os
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from pipeline import replaying
from pipeline.cli import dlq_replay, main  # noqa: F401  # the verbs register themselves
from pipeline.cli.app import app
from pipeline.core import headers as h
from pipeline.core.payloads import Document, Request
from pipeline.ops.replay import Replays
from pipeline.settings import Configured
from tests.ops.replay_world import Site

Run = Callable[..., Result]


async def filled() -> Site:
    """Letters that go, and letters that stay."""
    site = await Site.make(time.time)
    for number in range(3):
        await site.bury(number)
    await site.bury(3, job={"deadline_ms": 5})
    await site.bury(4, headers=((h.REPLAY_ID, b"r0"), (h.REPLAY_COUNT, b"3")))
    await site.bury(5, "preprocess", Request(type="quick_answer", input="?"))
    document = Document(source="s", id="1", tenant="t", title="", body="", version=1)
    await site.bury(6, "index", document, code="too_large")
    return site


@pytest.fixture
def sites() -> list[Site]:
    """The brokers that commands have met, the last one last: each meets one of its own."""
    return []


@pytest.fixture
def run(sites: list[Site], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Run:
    """Run the command on a new broker."""

    @asynccontextmanager
    async def opened(configured: Configured, say: object, others: Sequence[str] = ()) -> AsyncIterator[Replays]:
        sites.append(await filled())
        yield await sites[-1].replays()

    monkeypatch.setattr(replaying, "open_replays", opened)
    monkeypatch.chdir(tmp_path)
    return lambda *arguments, **how: CliRunner().invoke(app, ["dlq", "replay", *arguments], **how)


def test_a_dry_run_tells_all(run: Run, sites: list[Site]) -> None:
    """What would go where and why, what it costs, and what stays; nothing is written."""
    done = run("--dry-run")
    assert done.exit_code == 0, done.output
    told = " ".join(done.output.split())
    assert "5 of 7 letters go" in told
    assert "p.infer.retry.10s" in told
    assert "failed: 5 under a minute ago" in told
    assert "it will take 4 calls of models, with" in told
    assert "not replayed: 1 is of jobs whose deadline has passed; --extend SECONDS gives them more time" in told
    assert "not replayed: 1 has been replayed as often as --max-replays allows: the run quarantines them" in told
    assert not sites[-1].back()


def test_json_is_a_line_for_the_plan_and_one_for_the_run(run: Run, sites: list[Site]) -> None:
    """For programs; ids of letters are the same for both."""
    done = run("--yes", "--json", "--rate", "5000", "--stage", "infer")
    assert done.exit_code == 0, done.output
    plan, ran = map(json.loads, done.stdout.splitlines())
    assert plan["replay"] == ran["replay"]
    assert (3, 3, 1) == (plan["plan"]["going"], ran["run"]["replayed"], ran["run"]["quarantined"])
    assert len(sites[-1].back()) == 3


def test_a_run_says_what_it_has_done(run: Run) -> None:
    """In sentences."""
    done = run("--yes", "--rate", "5000", "--operator", "ann", "--why", "a test")
    assert done.exit_code == 0, done.output
    assert "5 letters replayed in" in done.output
    assert "1 quarantined: they were replayed too often" in done.output


def test_nobody_is_asked_where_nobody_is(run: Run, sites: list[Site]) -> None:
    """Without a terminal it takes --yes."""
    done = run()
    assert done.exit_code == 2
    assert "nobody can be asked here: look at --dry-run, then say --yes" in done.output
    assert not sites[-1].back()


@pytest.mark.parametrize("answer, code, gone", [("y", 0, 5), ("n", 1, 0)])
def test_a_person_is_asked(
    answer: str, code: int, gone: int, run: Run, sites: list[Site], monkeypatch: pytest.MonkeyPatch
) -> None:
    """With the number of letters and what they may cost; without a yes nothing is written."""
    monkeypatch.setattr(dlq_replay, "somebody_there", lambda: True)
    done = run("--rate", "5000", input=f"{answer}\n")
    assert (code, True) == (done.exit_code, "Replay 5 letters, for $0.00" in done.output), done.output
    replayed = sum(len(sites[-1].back(stage)) for stage in ("infer", "preprocess", "index"))
    assert gone == replayed


def test_nothing_to_do(run: Run) -> None:
    """That is no failure."""
    done = run("--yes", "--stage", "notify")
    assert (0, True) == (done.exit_code, "nothing is to be replayed" in done.output)


def test_letters_of_an_export(run: Run, sites: list[Site], tmp_path: Path) -> None:
    """Those that it names, and no others; what is no export is said, with the line."""
    listed = tmp_path / "letters.jsonl"
    listed.write_text('{"letter": "0"}\n\n')
    assert "0 of 0 letters go" in run("--file", str(listed), "--dry-run").output
    for text, sentence in (("{}\n", "line 1: not a letter of `pipeline dlq export`"), ("", "holds no letter")):
        listed.write_text(text)
        done = run("--file", str(listed))
        assert (2, True) == (done.exit_code, sentence in " ".join(done.output.split()))
    assert not sites[0].back()


def test_letters_by_name(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """As arguments, as the other verbs have it, or as options; of an export then only those that are named, too."""
    site = asyncio.run(Site.make(time.time))
    one, two, three = (asyncio.run(site.bury(number)).id for number in range(3))

    @asynccontextmanager
    async def opened(configured: Configured, say: object, others: Sequence[str] = ()) -> AsyncIterator[Replays]:
        yield await site.replays()

    monkeypatch.setattr(replaying, "open_replays", opened)
    monkeypatch.chdir(tmp_path)
    Path("export").write_text(f'{{"letter": "{two}"}}\n{{"letter": "{three}"}}\n')
    for named, count in (([one], 1), ([one, two], 2), ([one, "--letter", two], 2), ([one, two, "--file", "export"], 1)):
        done = CliRunner().invoke(app, ["dlq", "replay", *named, "--dry-run"])
        assert f"{count} of {count} letters go" in done.output, named


@pytest.mark.parametrize(
    "arguments, sentence",
    [
        (("--set", "endpoint=x"), "what can be set is type, model, max_output_tokens"),
        (("--to", "nobody"), "--to nobody: there is no such stage"),
        (("--from", "nobody"), "--from nobody: there is no such stage"),
        (("--resume", "r0"), "--resume r0: p.audit tells of no replay of this id"),
    ],
)
def test_what_is_misused_is_said(arguments: tuple[str, ...], sentence: str, run: Run) -> None:
    """In one sentence, with 2 for programs."""
    done = run("--yes", *arguments)
    assert (2, True) == (done.exit_code, sentence in " ".join(done.output.split())), done.output


async def test_a_second_signal_ends_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """The first one lets the transaction under way end."""
    codes: list[int] = []
    monkeypatch.setattr(os, "_exit", codes.append)
    handlers: dict[int, Callable[[], None]] = {}
    loop = asyncio.get_running_loop()
    monkeypatch.setattr(loop, "add_signal_handler", handlers.__setitem__)
    monkeypatch.setattr(loop, "remove_signal_handler", handlers.pop)
    with dlq_replay._stoppable() as stop:
        (first, second) = handlers.values()
        first()
        assert (True, []) == (stop.is_set(), codes)
        second()
    assert codes == [130]
    assert not handlers
