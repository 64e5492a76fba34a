"""The nemesis: keeps the processes of a run alive, and makes go wrong what the plan says."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import cast

from pipeline.core.ports import Clock
from pipeline.devkit.crash.built import Broker, Given, Rehearsal, Worker
from pipeline.devkit.crash.faults import SESSION, Fault, Flaw
from pipeline.devkit.crash.network import AcknowledgementLost, Host, Network
from pipeline.devkit.crash.operator import Operator
from pipeline.devkit.crash.outside import Outage, Outside
from pipeline.devkit.crash.scheduler import Process, outside
from pipeline.devkit.crash.watch import Watch

RESTART = 1.0
"""Seconds after which a process that ended by itself is started again."""
WATCH = 3.0
"""Seconds between two looks at whether all processes do their work."""
DRAIN = 29.0
"""Seconds after which a process that was asked to stop may have given up what it had in hand."""


@dataclass(eq=False)
class Life:
    """One life of a process, from its start to its end."""

    number: int
    host: Host
    worker: Worker
    watch: Watch
    task: asyncio.Task[int] = field(init=False)
    stopped: float = 0.0
    away: float = RESTART


class Nemesis:
    """The processes of one run. `lives` are all there were."""

    def __init__(
        self,
        rehearsal: Rehearsal,
        broker: Broker,
        network: Network,
        operator: Operator,
        world: Outside,
        ports: Mapping[type, object],
    ) -> None:
        """Take what processes are built of."""
        self.lives: list[Life] = []
        self._rehearsal = rehearsal
        self._broker = broker
        self._network = network
        self._operator = operator
        self._outside = world
        self._ports = ports
        self._stages: dict[int, Sequence[str]] = {}
        self._alive: dict[int, Life] = {}
        self._healed = self._over = False
        self._left: set[int] = set()
        self._clock: Clock = lambda: 0.0

    # -------------------------------------------------------------- processes

    def begin(self, processes: Sequence[Sequence[str]], joining: frozenset[int], clock: Clock) -> None:
        """Start all processes but those that join later."""
        self._clock = clock
        self._stages = dict(enumerate(processes))
        for number in self._stages:
            if number not in joining:
                self._start(number)

    def _start(self, number: int) -> None:
        if number in self._alive or self._over:
            return
        count = sum(life.number == number for life in self.lives) + 1
        host = Host(Process(f"process {number}, life {count}"))
        self._network.hosts.append(host)
        watch = Watch(host, self._network, self._operator, self._outside)
        given = Given(host, self._network, self._broker, self._clock)
        stages = [self._network.ledger.chart.stages[name] for name in self._stages[number]]
        worker = self._rehearsal.worker(stages, given, self._ports, watch)
        life = Life(number, host, worker, watch)
        life.task = host.process.start(worker.run())
        self.lives.append(life)
        self._alive[number] = life
        self._note(life, f"starts with {', '.join(self._stages[number])}")

    def _note(self, life: Life, text: str) -> None:
        self._network.disturbed(life.host, text)

    async def watch(self) -> None:
        """Start again what has ended by itself, and stop what has halted; only a lost acknowledgement explains that."""
        while True:
            await asyncio.sleep(5 * WATCH if self._healed else WATCH)
            for life in list(self._alive.values()):
                if life.task.done():
                    self._ended(life)
                elif not life.stopped:
                    self._look_for_halts(life)

    def _ended(self, life: Life) -> None:
        del self._alive[life.number]
        self._forget(life)
        error = life.task.exception()
        if error is not None:
            self._network.ledger.break_("no process dies of a bug", f"{life.host.process.name} died of {error!r}")
        elif life.task.result() or (life.stopped and _now() > life.stopped + DRAIN):
            life.host.fell = True
        self._note(life, "has ended")
        if life.number not in self._left:
            outside(RESTART if self._healed else life.away, self._start, life.number)

    def _look_for_halts(self, life: Life) -> None:
        for runner in life.worker.runners:
            stage, ready, state = runner.status()
            if not ready and state.startswith("halted"):
                if AcknowledgementLost.__name__ not in state:
                    text = f"{stage} of {life.host.process.name} {state}"
                    self._network.ledger.break_("no stage halts without a reason", text)
                life.host.fell = True
                self._stop(life)
                return

    def _stop(self, life: Life) -> None:
        life.stopped = life.stopped or _now()
        life.worker.stop()
        life.host.ring()

    def _forget(self, life: Life) -> None:
        self._network.hosts.remove(life.host)

    # -------------------------------------------------------------- faults

    def afflict(self, fault: Fault) -> None:
        """Begin one fault."""
        if fault.kind in self._outside.down:
            self._outside.down[fault.kind] = Outage(_now() + fault.seconds, fault.flavour)
        elif fault.kind == "bug":
            self._outside.bugs[fault.flavour] = _now() + fault.seconds
        elif fault.kind == "join":
            self._start(fault.target)
            outside(fault.seconds, self._leave, fault.target)
        else:
            life = self._alive.get(fault.target)
            if life is not None:
                self._strike(life, fault)
                return
        self._network.ledger.say(_now(), "fault", str(fault))

    def _strike(self, life: Life, fault: Fault) -> None:
        self._network.ledger.say(_now(), "fault", str(fault))
        link, now = life.host.link, _now()
        match fault.kind:
            case "kill":
                life.host.process.trap(fault.steps, lambda: self._kill(life, fault.seconds))
            case "stall":
                life.host.process.trap(fault.steps, lambda: self._stall(life, fault.seconds))
            case "stop":
                self._note(life, "is asked to stop")
                life.away = fault.seconds
                self._stop(life)
            case "slow":
                self._limp(life, now + fault.seconds)
            case "away":
                link.away_until = now + fault.seconds
            case "late":
                link.late_until = now + fault.seconds
            case "transaction":
                for one in life.host.transactions:
                    one.fail(cast(Flaw, fault.flavour))
            case _:
                link.untold += 1

    def _leave(self, number: int) -> None:
        life = self._alive.get(number)
        if life is not None and not self._healed:
            self._note(life, "is asked to leave")
            self._left.add(number)
            self._stop(life)

    def _kill(self, life: Life, seconds: float) -> None:
        """End a life between two steps: called by the scheduler, so all that follows is done from outside."""
        if life is self._alive.get(life.number) and not self._healed:
            life.host.process.running = False
            outside(0.0, self._bury, life, seconds)

    def _bury(self, life: Life, seconds: float) -> None:
        if life is not self._alive.get(life.number):
            return
        self._note(life, "is killed")
        life.host.fell = True
        del self._alive[life.number]
        self._forget(life)
        for consumer in life.host.consumers:
            consumer.inner.die()
        for one in life.host.transactions:
            one.die()
        outside(SESSION, self._missed_for_good, life)
        if not self._healed:
            outside(seconds, self._start, life.number)

    def _missed_for_good(self, life: Life) -> None:
        for consumer in life.host.consumers:
            self._network.broker.group(consumer.inner.group).leave(consumer.inner.number)
        self._network.ring()

    def _stall(self, life: Life, seconds: float) -> None:
        if life.host.process.running and not self._healed:
            life.host.process.running = False
            outside(0.0, self._note, life, f"stands still for {seconds:.1f} s")
            outside(seconds, self._go_on, life)
            if seconds > SESSION:
                outside(SESSION, self._miss, life)

    def _go_on(self, life: Life) -> None:
        if not life.host.process.running and life is self._alive.get(life.number):
            self._note(life, "goes on")
            life.host.process.running = True

    def _miss(self, life: Life) -> None:
        """Its groups have not heard of it for a session: others get its partitions."""
        if not life.host.process.running and life is self._alive.get(life.number):
            self._note(life, "is missed by its groups")
            # It may have taken what it has not begun: others find that committed, and it loses it.
            life.host.fell = True
            for consumer in life.host.consumers:
                consumer.inner.expel()
            self._network.ring()

    def _limp(self, life: Life, until: float) -> None:
        if _now() < until and not self._healed and life is self._alive.get(life.number):
            self._stall(life, 0.2)
            outside(0.25, self._limp, life, until)

    # -------------------------------------------------------------- the end

    def heal(self) -> None:
        """End all faults: whoever stands still goes on, whoever is dead is started again."""
        self._healed = True
        for outage in self._outside.down.values():
            outage.until = 0.0
        self._outside.bugs.clear()
        for life in list(self._alive.values()):
            self._go_on(life)
            life.host.link.away_until = life.host.link.late_until = 0.0
            life.host.link.untold = 0
        for number in self._stages.keys() - self._left:
            self._start(number)
        self._network.ring()

    async def stop(self, wait: Callable[[], float]) -> list[Life]:
        """Stop all that lives, and return those that still have tasks after a while."""
        living = list(self._alive.values())
        for life in living:
            self._stop(life)
        await asyncio.wait([life.task for life in living], timeout=wait())
        await asyncio.sleep(1.0)
        return [life for life in living if life.host.process.tasks]

    async def bury(self) -> None:
        """Let the dead end in silence, so that nothing is left of the run."""
        self._healed = self._over = True
        for life in self.lives:
            life.host.silent = True
            life.host.process.running = True
        for _ in range(3):
            tasks = [task for life in self.lives for task in life.host.process.tasks]
            if not tasks:
                return
            for task in tasks:
                task.cancel()
            await asyncio.wait(tasks, timeout=10.0)

    @property
    def living(self) -> Sequence[Life]:
        """The processes that run now."""
        return list(self._alive.values())


def _now() -> float:
    return asyncio.get_running_loop().time()
