"""P2: our runtime against the same stage in the libraries of others."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.bench.failure import Failed
from tests.bench.figures import Figure, at_least, ratios
from tests.bench.input import fill_plain
from tests.bench.lab import Lab, Stand, Variant
from tests.bench.meter import Sample
from tests.bench.order import Order, new_group
from tests.bench.throughput import BARE, RUNTIME

ENVIRONMENTS = Path(".bench") / "peers"
INSTALL_SECONDS = 300.0
VALUE_BYTES = 1000

_PINS = Path(__file__).with_name("peers")


@dataclass(frozen=True, slots=True)
class Peer:
    """One peer: its environment, its program there, and how many times as fast our runtime shall be."""

    name: str
    environment: str
    module: str
    goal: float


PEERS = (
    Peer("aio", "confluent", "confluent_aio", 4),
    Peer("quix", "quixstreams", "quix_dataframe", 2.5),
    Peer("aiokafka", "aiokafka", "aiokafka_batches", 2.3),
    Peer("faststream-batch", "faststream", "faststream_batch", 9),
    Peer("faststream", "faststream", "faststream_single", 100),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class PeerProgram(Variant):
    """A peer's program, which is told less, and reads records without our headers: they are of no use to it."""

    source: str

    def told(self, order: Order) -> str:
        """Spell the order as peers read it."""
        known = {name: getattr(order, name) for name in ("servers", "output", "seconds", "available")}
        return json.dumps({**known, "input": self.source, "group": new_group(), "result": str(order.result)})


async def compared(stand: Stand) -> list[Figure]:
    """P2: the no-op stage of P1 in other libraries. Needs the network, the first time."""
    usable = await _usable(stand.lab)
    if not usable:
        raise Failed("none of the peers could be installed, see above")
    async with stand.apart() as plain:
        await fill_plain(stand.servers, plain.input, stand.lab.records, VALUE_BYTES)
        order = stand.order()
        variants = [Variant.module("bare loop", BARE, order), Variant.module("our runtime", RUNTIME, order)]
        for peer in usable:
            program = (str(_python(peer.environment)), "-m", f"tests.bench.peers.{peer.module}")
            variants.append(PeerProgram(peer.name, program, order, optional=True, source=plain.input))
        found = await stand.measure(variants)
    return [_figure(peer, found) for peer in usable if peer.name in found]


async def _usable(lab: Lab) -> list[Peer]:
    environments = dict.fromkeys(peer.environment for peer in PEERS)
    made = [name for name in environments if await _made(lab, name)]
    return [peer for peer in PEERS if peer.environment in made]


async def _made(lab: Lab, name: str) -> bool:
    """Make a peer's environment, unless it is there; where that cannot be, say why."""
    folder, pins = ENVIRONMENTS / name, _PINS / f"requirements-{name}.txt"
    stamp = folder / "installed.txt"
    if stamp.exists() and stamp.read_text("utf-8") == pins.read_text("utf-8"):
        return True
    print(f"  making {folder} (needs the network)", flush=True)
    pip = (str(_python(name)), "-m", "pip", "--disable-pip-version-check", "install", "--quiet", "--retries", "1")
    try:
        await lab.run((sys.executable, "-m", "venv", "--clear", str(folder)))
        await lab.run((*pip, "--no-deps", "--only-binary=:all:", "-r", str(pins)), limit=INSTALL_SECONDS)
    except Failed as error:
        lab.miss(f"P2 goes on without {name}: it could not be installed, which needs pip and the network: {error}")
        return False
    stamp.write_text(pins.read_text("utf-8"), encoding="utf-8")
    return True


def _python(name: str) -> Path:
    # Not resolved: the link is what makes it the environment's.
    return (ENVIRONMENTS / name / "bin" / "python").absolute()


def _figure(peer: Peer, found: Mapping[str, Sequence[Sample]]) -> Figure:
    ours, theirs = ([sample.rate for sample in found[name]] for name in ("our runtime", peer.name))
    what = f"records/s of a no-op stage, ours against {peer.module.replace('_', ' ')}"
    return at_least(f"P2-{peer.name}", what, peer.goal, ratios(ours, theirs))
