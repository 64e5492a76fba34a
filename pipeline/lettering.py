"""What working with dead letters is made of: the broker, the codec, and what each stage's letters were."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import AsyncExitStack, ExitStack, asynccontextmanager, contextmanager
from dataclasses import dataclass
from functools import partial
from multiprocessing import get_context
from multiprocessing.connection import Connection

from pipeline import topology
from pipeline.broker.kafka_producer import open_producer
from pipeline.broker.kafka_reader import open_reader
from pipeline.core import names
from pipeline.core.errors import ConfigurationError
from pipeline.core.letter_filter import LetterFilter
from pipeline.core.retry import describe
from pipeline.ops.letter_decode import DeadTopic, dead_topics
from pipeline.ops.letters import LetterPorts, Letters, Listing
from pipeline.ops.log_scan import Progress, Snapshot, dead_of_others, unhindered
from pipeline.resources import resource
from pipeline.settings import Configured
from pipeline.telemetry import logs
from pipeline.wire.codec import AvroCodec
from pipeline.wire.debezium import ChangeDecoder
from pipeline.wire.schemas import load_schemas
from pipeline.wire.versions import ValueVersions
from pipeline.wiring import CLOCK, Say, opened_admin, opened_registry, tables_of
from pipeline.world import kafka_of

MANY = 200_000
"""From so many letters on it is worth the second that another process takes to start."""
MOST_PROCESSES = 4


@asynccontextmanager
async def open_letter_ports(
    configured: Configured, say: Say, progress: Progress, others: Sequence[str] = ()
) -> AsyncIterator[LetterPorts]:
    """Open what working with dead letters takes. `others` are dead-letter topics that are none of our stages'.

    Raises ConfigurationError where the broker does not answer, or one of `others` does not exist.
    """
    kafka, prefix = kafka_of(configured), configured.settings.topic_prefix
    async with AsyncExitStack() as stack:
        admin = await stack.enter_async_context(opened_admin(configured, say))
        producer = await stack.enter_async_context(open_producer(kafka))
        registry = await stack.enter_async_context(opened_registry(configured))
        await dead_of_others(admin, others)
        schemas = load_schemas(resource("schemas"))
        tables = tables_of(configured, topology.STAGES)
        foreign = ChangeDecoder(tables, registry) if tables is not None else None
        yield LetterPorts(
            # Letters are looked at and dropped: their reader need not make them small to keep.
            opens=partial(open_reader, kafka, f"{prefix}.dlq", committed=True, kept=False),
            shelf=admin,
            codec=AvroCodec(schemas, registry),
            versions=ValueVersions(schemas, registry),
            producer=producer,
            clock=CLOCK,
            topics={**dead_topics(prefix, topology.STAGES, foreign), **{name: DeadTopic(name) for name in others}},
            states=names.topic(prefix, topology.LETTERS.noun),
            audit=names.topic(prefix, topology.AUDIT.noun),
            progress=progress,
        )


# ------------------------------------------------------------------ more than one process


@dataclass(frozen=True, slots=True)
class Task:
    """What a process is to list: its share of the letters."""

    configured: Configured
    others: Sequence[str]
    wanted: LetterFilter
    newest: int
    share: Snapshot


async def listed(
    letters: Letters, configured: Configured, others: Sequence[str], wanted: LetterFilter, newest: int, processes: int
) -> Listing:
    """List as `Letters.listing` does, where there are many letters in so many `processes`, this one included.

    What a letter costs is CPU time, most of it in turning headers into objects, and Python has one thread for that.
    What was done about letters is read here, each process what it needs of it.
    Raises ConfigurationError where a process ends early.
    """
    bounds = await letters.snapshot()
    shares = bounds.shares(min(processes, MOST_PROCESSES) if bounds.total >= MANY else 1)
    with ExitStack() as stack:
        tasks = [Task(configured, others, wanted, newest, share) for share in shares[1:]]
        answers = [asyncio.create_task(asyncio.to_thread(stack.enter_context(_process(one)))) for one in tasks]
        await letters.refresh(shares[0].numbers)
        listing = await letters.listing(wanted, newest, shares[0])
        for answer in answers:
            listing.join(await answer, newest)
    return listing


@contextmanager
def _process(task: Task) -> Iterator[Callable[[], Listing]]:
    """Start a process for a task; yields what waits for its answer. It ends with the block, whatever it is at."""
    context = get_context("spawn")  # a copy of this process would have copies of its clients, without their threads
    ours, theirs = context.Pipe(duplex=False)
    process = context.Process(target=_work, args=(theirs, task), daemon=True)
    process.start()
    theirs.close()
    try:
        yield partial(_answer, ours)
    finally:
        process.terminate()
        process.join()
        ours.close()


def _answer(connection: Connection) -> Listing:
    try:
        answer: Listing | str = connection.recv()
    except EOFError:
        answer = "it has ended early"
    if isinstance(answer, str):
        raise ConfigurationError(f"a process that counted a share of the letters failed: {answer}")
    return answer


def _work(connection: Connection, task: Task) -> None:
    """List a share: the whole life of a process."""
    logs.configure("console", "ERROR")
    try:
        with unhindered():
            connection.send(asyncio.run(_listing(task)))
    except Exception as error:
        connection.send(describe(error))


async def _listing(task: Task) -> Listing:
    async with open_letter_ports(task.configured, lambda _: None, lambda *_: None, task.others) as ports:
        letters = Letters(ports)
        await letters.refresh(task.share.numbers)
        return await letters.listing(task.wanted, task.newest, task.share)
