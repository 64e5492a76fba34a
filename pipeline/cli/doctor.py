"""`pipeline doctor`: what this machine lacks for running the pipeline, and the cure."""

from __future__ import annotations

import platform
import shutil
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path

from pipeline import wiring
from pipeline.core.errors import PipelineError
from pipeline.devkit.kafka_errors import EmbeddedKafkaError
from pipeline.devkit.kafka_java import find_java
from pipeline.devkit.ports import free_ports
from pipeline.devkit.postgres_programs import PostgresMissing, find_owner, find_programs
from pipeline.devkit.runfolder import RunFolder
from pipeline.settings import Configured, masked

ENOUGH_DISK = 2 * 1024**3
BROKER_SECONDS = 5.0


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing looked at: whether it is fine, what was found, and what to do where it is not.

    `needed` is False where the pipeline can run without it.
    """

    name: str
    fine: bool
    found: str
    cure: str = ""
    needed: bool = True


async def examine(configured: Configured) -> AsyncIterator[Finding]:
    """Look at everything, one finding after the other."""
    embedded = configured.environment.find("KAFKA_BOOTSTRAP_SERVERS") is None
    yield Finding("Python", fine=True, found=platform.python_version())
    yield _java(embedded)
    yield _maven(configured, embedded)
    yield _postgres()
    yield _ports()
    yield _disk("disk: data", configured.data)
    yield _disk("disk: cache", configured.cache)
    yield _catalog(configured)
    if configured.settings.tables is not None:
        yield _tables(configured)
    yield _owner(configured)
    broker = await _broker(configured)
    yield broker
    if broker.fine and not embedded and configured.settings.tables is not None:
        yield await _table_topics(configured)
    if registry := configured.environment.get("SCHEMA_REGISTRY_URL"):
        where = masked("SCHEMA_REGISTRY_URL", registry)
        yield await _asked("schemas", f"all are known at {where}", wiring.check_registry(configured))
    if configured.environment.get("SOURCE_DATABASE_URL"):
        found = "it answers, and so do the queries and the slot of PIPELINE_TABLES"
        yield await _asked("source database", found, wiring.check_source(configured))


def _java(embedded: bool) -> Finding:
    try:
        java = find_java()
    except EmbeddedKafkaError as error:
        return Finding("Java", False, "none that can run Kafka", str(error), needed=embedded)
    return Finding("Java", fine=True, found=f"version {java.version}: {java.program}")


def _maven(configured: Configured, embedded: bool) -> Finding:
    program = shutil.which("mvn")
    if program:
        return Finding("Maven", fine=True, found=program)
    if any(configured.cache.glob("**/kafka_2.13-*.jar")):
        return Finding("Maven", fine=True, found="not here, and not needed: the Kafka jars are in the cache")
    cure = "install Maven (Debian, Ubuntu: apt-get install maven; macOS: brew install maven); it fetches Kafka's jars"
    return Finding("Maven", False, "not found", cure, needed=embedded)


def _postgres() -> Finding:
    try:
        programs, _ = find_programs(), find_owner()
    except PostgresMissing as error:
        return Finding("PostgreSQL", False, "none that `pipeline cdc` can start", str(error), needed=False)
    return Finding("PostgreSQL", fine=True, found=f"version {programs.version}: {programs.folder}")


def _ports() -> Finding:
    try:
        ports = free_ports(8)
    except OSError as error:
        return Finding("ports", False, str(error), "free loopback ports, or raise the limit of open files")
    return Finding("ports", fine=True, found=f"free on the loopback address, {ports[0]} for one")


def _disk(name: str, path: Path) -> Finding:
    existing = next(folder for folder in (path, *path.parents) if folder.exists())
    free = shutil.disk_usage(existing).free
    found = f"{free / 1024**3:.1f} GiB free at {existing}"
    return Finding(name, free >= ENOUGH_DISK, found, f"free at least {ENOUGH_DISK // 1024**3} GiB there")


def _catalog(configured: Configured) -> Finding:
    return _tried("catalog", lambda: f"{len(wiring.catalog_of(configured).types)} event types")


def _tables(configured: Configured) -> Finding:
    return _tried("tables", lambda: f"{len(wiring.foreign_topics(configured, wiring.STAGES['index']))} are mapped")


def _owner(configured: Configured) -> Finding:
    owner = RunFolder(configured.data).owner()
    found = f"`pipeline {owner}` runs here" if owner else "nothing runs here"
    return Finding("run folder", fine=True, found=found)


async def _table_topics(configured: Configured) -> Finding:
    topics = list(wiring.foreign_topics(configured, wiring.STAGES["index"]))
    async with wiring.opened_admin(configured, lambda _: None) as admin:
        there = await admin.partitions(topics)
    missing = ", ".join(name for name in topics if name not in there)
    if not missing:
        return Finding("tables: topics", fine=True, found=f"{len(there)} are there")
    cure = "the connector makes a table's topic with its first row; else mend PIPELINE_TABLES, or the connector"
    return Finding("tables: topics", False, f"not there yet: {missing}", cure, needed=False)


async def _asked(name: str, found: str, work: Awaitable[None]) -> Finding:
    try:
        await work
    except PipelineError as error:
        return Finding(name, False, "not as it should be", str(error))
    return Finding(name, fine=True, found=found)


async def _broker(configured: Configured) -> Finding:
    servers = configured.environment.get("KAFKA_BOOTSTRAP_SERVERS")
    if servers is None:
        return Finding("broker", fine=True, found="none is configured: `pipeline up` and `demo` start one")
    try:
        quick = configured.settings.model_copy(update={"startup_seconds": BROKER_SECONDS})
        patient = Configured(quick, configured.concurrency, configured.environment)
        async with wiring.opened_admin(patient, lambda _: None):
            return Finding("broker", fine=True, found=f"answers at {servers}")
    except PipelineError as error:
        return Finding("broker", False, "does not answer", str(error))


def _tried(name: str, look: Callable[[], str]) -> Finding:
    try:
        return Finding(name, fine=True, found=look())
    except (PipelineError, FileNotFoundError) as error:
        return Finding(name, False, "cannot be used", str(error))
