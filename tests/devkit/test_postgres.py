"""Tests of pipeline/devkit/postgres.py and postgres_programs.py."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import stat
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import asyncpg
import psutil
import pytest

from pipeline.devkit.postgres import Postgres, PostgresConfig, postgres
from pipeline.devkit.postgres_programs import Owner, PostgresMissing, find_owner, find_programs

pytestmark = pytest.mark.system

ROOT = Path(__file__).parents[2]

# Starts a server, says where it is, and waits to be killed.
OWNER = """
import asyncio, sys
from pathlib import Path
from pipeline.devkit.postgres import PostgresConfig, postgres

async def main():
    async with postgres(PostgresConfig(Path(sys.argv[1]))) as server:
        print(server.pid, flush=True)
        await asyncio.sleep(600)

asyncio.run(main())
"""


@asynccontextmanager
async def server(folder: Path) -> AsyncIterator[Postgres]:
    try:
        find_programs()
    except PostgresMissing as missing:
        if os.environ.get("CI"):
            raise
        pytest.skip(str(missing))
    async with postgres(PostgresConfig(folder)) as running:
        yield running


async def value(running: Postgres, *statements: str) -> object:
    """Run statements; the first value of the last one's answer."""
    connection = await asyncpg.connect(running.address())
    try:
        for statement in statements[:-1]:
            await connection.execute(statement)
        return await connection.fetchval(statements[-1])
    finally:
        await connection.close()


async def test_it_keeps_what_was_committed_over_every_kind_of_end(tmp_path: Path) -> None:
    """Stopped, crashed and killed: after a restart the rows are there, on the same port. In the end nothing is left."""
    async with server(tmp_path / "a folder") as running:
        assert await value(running, "SHOW wal_level") == "logical"
        port, pids = running.port, [running.pid]
        await value(running, "CREATE TABLE t (i int)", "INSERT INTO t VALUES (1) RETURNING i")
        await running.stop()
        await running.restart()
        await value(running, "INSERT INTO t VALUES (2) RETURNING i")
        await running.crash()
        await running.restart()
        await value(running, "INSERT INTO t VALUES (3) RETURNING i")
        await running.process.kill()
        await running.restart()
        assert await value(running, "SELECT count(*) FROM t") == 3
        assert running.port == port
        pids.append(running.pid)
        data = (tmp_path / "a folder" / "data").resolve()
    assert not any(map(psutil.pid_exists, pids))
    assert (tmp_path / "a folder" / "postgres.log").is_file()
    assert data.is_relative_to(tmp_path) or not data.parent.exists()


async def test_each_start_is_an_empty_server(tmp_path: Path) -> None:
    """What an earlier run has left in the folder is thrown away."""
    for _ in range(2):
        async with server(tmp_path) as running:
            await value(running, "CREATE TABLE t (i int)", "SELECT 1")


@pytest.mark.within(100)
async def test_it_ends_when_its_owner_is_killed(tmp_path: Path) -> None:
    """kill -9 of the process that started it; the server ends by itself."""
    async with server(tmp_path / "first"):
        pass
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    owner = await asyncio.create_subprocess_exec(
        sys.executable, "-c", OWNER, str(tmp_path / "second"), env=environment, stdout=asyncio.subprocess.PIPE
    )
    assert owner.stdout is not None
    pid = int(await owner.stdout.readline())
    owner.kill()
    await owner.wait()
    async with asyncio.timeout(20):
        while psutil.pid_exists(pid):
            await asyncio.sleep(0.05)
    link = tmp_path / "second" / "data"
    if link.is_symlink():  # nobody was left to remove it; the next start in this folder would
        async with server(tmp_path / "second"):
            pass
        assert not link.exists()


async def test_a_child_of_it_does_not_outlive_it(tmp_path: Path) -> None:
    """Even where its first process is killed with a client at work."""
    async with server(tmp_path) as running:
        connection = await asyncpg.connect(running.address())
        worker = await connection.fetchval("SELECT pg_backend_pid()")
        os.kill(running.pid, signal.SIGKILL)
        async with asyncio.timeout(20):
            while psutil.pid_exists(worker):
                await asyncio.sleep(0.05)
        with contextlib.suppress(OSError, asyncpg.PostgresError, asyncpg.InterfaceError):
            await connection.close(timeout=1)


def test_a_machine_without_it_is_told_the_cure(tmp_path: Path) -> None:
    """Nothing on PATH, nothing in the folders of packages."""
    with pytest.raises(PostgresMissing, match=r"no initdb.*apt-get install postgresql"):
        find_programs(str(tmp_path), tmp_path)


@pytest.mark.parametrize("says, found", [("(PostgreSQL) 9.6.1", "version 9"), ("nothing", "no working one")])
def test_one_that_is_too_old_or_broken_is_named(tmp_path: Path, says: str, found: str) -> None:
    """Of several, the newest of the packages is taken."""
    _install(tmp_path / "bin", says)
    with pytest.raises(PostgresMissing, match=found):
        find_programs(str(tmp_path / "bin"), tmp_path)
    _install(tmp_path / "usr/lib/postgresql/9/bin", "(PostgreSQL) 9.6")
    _install(tmp_path / "usr/lib/postgresql/15/bin", "(PostgreSQL) 15.18 (Debian 15.18-0)")
    programs = find_programs(str(tmp_path / "bin"), tmp_path)
    assert programs.version == 15
    assert programs["initdb"] == str(tmp_path / "usr/lib/postgresql/15/bin/initdb")


def _install(folder: Path, says: str) -> None:
    folder.mkdir(parents=True)
    for name in ("initdb", "postgres"):
        program = folder / name
        program.write_text(f"#!/bin/sh\necho 'postgres {says}'\n")
        program.chmod(program.stat().st_mode | stat.S_IXUSR)


def test_a_folder_is_closed_to_a_user_who_cannot_pass_a_folder_above_it(tmp_path: Path) -> None:
    """By the mode that counts for this user: the owner's, the group's, or everybody's."""
    inner = tmp_path / "closed" / "inner"
    inner.mkdir(parents=True)
    for path in (tmp_path, *tmp_path.parents[:3]):  # one more where tests run in several processes
        path.chmod(path.stat().st_mode | 0o011)
    inner.parent.chmod(0o710)
    mine = inner.stat()
    stranger = Owner("x", mine.st_uid + 1, mine.st_gid + 1, "setpriv")
    assert stranger.may_enter(tmp_path)
    assert not stranger.may_enter(inner)
    assert Owner("x", mine.st_uid + 1, mine.st_gid, "setpriv").may_enter(inner)
    inner.parent.chmod(0o611)
    assert not Owner("x", mine.st_uid, mine.st_gid, "setpriv").may_enter(inner)
    inner.parent.chmod(0o755)


def test_only_root_needs_another_user() -> None:
    """Whoever else starts it owns it."""
    owner = find_owner()
    assert (owner is not None and owner.uid != 0) if os.geteuid() == 0 else owner is None
