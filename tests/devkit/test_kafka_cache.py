from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from pipeline.devkit.guard import Command
from pipeline.devkit.kafka_cache import Busy, Failed, fingerprint, locked, make_once, run_tool, tail


def nobody() -> None:
    """Waiting is told to nobody."""


# ------------------------------------------------------------------------------------------------ locks
async def test_a_lock_that_is_held_is_waited_for(tmp_path: Path) -> None:
    """The second comes in when the first has gone, and says once that it waits."""
    order: list[str] = []
    waits = asyncio.Event()

    def waiting() -> None:
        order.append("waiting")
        waits.set()

    async def second() -> None:
        async with locked(tmp_path / "lock", waiting, seconds=30):
            order.append("second")

    async with locked(tmp_path / "lock", nobody, seconds=0):
        task = asyncio.create_task(second())
        await waits.wait()
        order.append("first")
    await task
    assert order == ["waiting", "first", "second"]


async def test_a_lock_that_stays_held_is_busy(tmp_path: Path) -> None:
    """Waiting is bounded."""
    async with locked(tmp_path / "lock", nobody, seconds=0):
        with pytest.raises(Busy):
            async with locked(tmp_path / "lock", nobody, seconds=0.01):
                pytest.fail("both have the lock")


@pytest.mark.system
async def test_a_lock_lives_on_in_a_child_that_inherits_it(tmp_path: Path) -> None:
    """A broker that is still ending keeps its folder, though its owner is gone."""
    async with locked(tmp_path / "lock", nobody, seconds=0) as descriptor:
        child = await asyncio.create_subprocess_exec("cat", stdin=asyncio.subprocess.PIPE, pass_fds=(descriptor,))
    with pytest.raises(Busy):
        async with locked(tmp_path / "lock", nobody, seconds=0):
            pytest.fail("the child holds it, too")
    await child.communicate(b"")
    async with locked(tmp_path / "lock", nobody, seconds=5):
        assert child.returncode == 0


# ------------------------------------------------------------------------------------------------ made once
async def test_what_was_made_is_not_made_again(tmp_path: Path) -> None:
    """The second call finds what the first has made."""

    async def make(folder: Path) -> None:
        (folder / "made").touch()

    async def never(folder: Path) -> None:
        pytest.fail("it was there already")

    target = tmp_path / "deep" / "target"
    assert await make_once(target, nobody, make) == target
    assert await make_once(target, nobody, never) == target
    assert (target / "made").exists()


async def test_several_at_once_make_it_once(tmp_path: Path) -> None:
    """One makes, the others wait and find it."""
    made: list[Path] = []

    async def make(folder: Path) -> None:
        made.append(folder)
        await asyncio.sleep(0)

    await asyncio.gather(*(make_once(tmp_path / "target", nobody, make) for _ in range(5)))
    assert len(made) == 1


async def test_a_making_that_was_interrupted_leaves_nothing_that_looks_whole(tmp_path: Path) -> None:
    """The target appears only when it is whole; the next making begins anew."""

    async def half(folder: Path) -> None:
        (folder / "half").touch()
        raise RuntimeError("interrupted")

    async def whole(folder: Path) -> None:
        assert list(folder.iterdir()) == []
        (folder / "whole").touch()

    target = tmp_path / "target"
    with pytest.raises(RuntimeError, match="interrupted"):
        await make_once(target, nobody, half)
    assert not target.exists()
    await make_once(target, nobody, whole)
    assert [path.name for path in target.iterdir()] == ["whole"]


# ------------------------------------------------------------------------------------------------ tools
@pytest.mark.system
async def test_a_tool_that_fails_tells_its_error_and_its_log(tmp_path: Path) -> None:
    """The first line with an error, without its colours, is the reason; the log has the rest."""
    log = tmp_path / "log"
    script = "echo start; printf '\\033[0m[ERROR] no route\\n'; echo '[ERROR] help'; exit 1"
    with pytest.raises(Failed, match=rf"^\[ERROR\] no route; see {log}$"):
        await run_tool(Command(("sh", "-c", script), output=log), 20)


@pytest.mark.system
async def test_a_tool_without_errors_tells_its_last_line_or_its_exit_code(tmp_path: Path) -> None:
    """Any reason is better than none."""
    with pytest.raises(Failed, match="two"):
        await run_tool(Command(("sh", "-c", "echo one; echo two; exit 1"), output=tmp_path / "log"), 20)
    with pytest.raises(Failed, match="exit code 3"):
        await run_tool(Command(("sh", "-c", "exit 3"), output=tmp_path / "other"), 20)


@pytest.mark.system
async def test_a_tool_is_ended_when_its_time_is_over(tmp_path: Path) -> None:
    """Nobody waits for ever."""
    with pytest.raises(Failed, match="longer than 0 s"):
        await run_tool(Command(("sleep", "600"), output=tmp_path / "log"), 0.2)


@pytest.mark.system
async def test_a_tool_that_cannot_be_started_is_named(tmp_path: Path) -> None:
    """What the system says is handed on."""
    with pytest.raises(Failed, match="no-such-tool: No such file or directory"):
        await run_tool(Command(("no-such-tool",), output=tmp_path / "log"), 20)


# ------------------------------------------------------------------------------------------------ files
def test_the_tail_of_a_log_is_its_last_lines(tmp_path: Path) -> None:
    """Of a long log only the end is read; bytes that are no text do no harm; a log that is not there is empty."""
    log = tmp_path / "log"
    log.write_bytes(b"x" * 100_000 + b"\nlast but one\n\xff last\n")
    assert tail(log, lines=2) == "last but one\n\ufffd last"
    assert tail(tmp_path / "nothing", lines=2) == ""


def test_a_fingerprint_changes_with_the_content(tmp_path: Path) -> None:
    """What is cached for one content is not found for another."""
    one, same, other = (tmp_path / name for name in ("one", "same", "other"))
    one.write_text("a")
    same.write_text("a")
    other.write_text("b")
    assert fingerprint(one) == fingerprint(same) != fingerprint(other)
