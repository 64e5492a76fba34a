"""The crash simulator itself: it is reproducible, and it finds what is broken on purpose."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import pytest

from pipeline.broker.wishes import Wishes
from pipeline.cli import simulate as verb
from pipeline.core.record import Commit, Outgoing, Partition
from pipeline.devkit.crash import faults
from pipeline.devkit.crash import search as searching
from pipeline.devkit.crash.run import Ran, run
from pipeline.devkit.crash.search import search
from pipeline.devkit.crash.shrink import shrink
from pipeline.rehearsal import Rehearsal
from pipeline.runtime import intake
from pipeline.runtime.assignment import Assignment
from pipeline.runtime.follow import Follower
from pipeline.runtime.keys import KeyQueues
from pipeline.runtime.offsets import Frontier
from pipeline.runtime.settle import Settler
from pipeline.runtime.work import Item

REHEARSAL = Rehearsal()
STAGES = REHEARSAL.stages
ENOUGH = 60

Break = Callable[[pytest.MonkeyPatch], None]


def play(seed: int) -> Ran:
    return run(REHEARSAL, faults.draw(seed, STAGES))


def test_a_few_seeds_hold() -> None:
    """Work is done, things go wrong, and no promise is broken; those of the whole suite are next door."""
    found = search(REHEARSAL, range(5))
    assert found.as_json()["findings"] == []
    assert found.faults > 10
    assert found.records > 100
    assert found.calls > 20


@pytest.mark.local
def test_any_number_of_processes_comes_to_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two processes play the same faults, records and calls as one, told of in the order of seeds."""
    monkeypatch.setattr(searching, "BLOCK", 2)
    counts: list[int] = []
    assert search(REHEARSAL, range(5), counts.append, processes=2) == search(REHEARSAL, range(5))
    assert counts == [1, 2, 3, 4, 5]


def test_equal_seeds_equal_runs() -> None:
    """To the last record and line of history; another seed is another run."""
    first, again, other = play(7), play(7), play(8)
    assert (first.digest, first.history) == (again.digest, again.history)
    assert first.digest != other.digest


# ------------------------------------------------------------------------------------------------ broken on purpose
def settles_too_early(patch: pytest.MonkeyPatch) -> None:
    """A settler that does not wait for the acknowledgement."""

    def send(self: Settler, item: Item, end: str, records: Sequence[Outgoing]) -> None:
        item.end = end
        for record in records:
            self.producer.send(record, lambda _: None)
        self.ledger.settled(item)

    patch.setattr(Settler, "_send", send)


def frontier_skips(patch: pytest.MonkeyPatch) -> None:
    """A frontier that is the end of what was taken."""
    patch.setattr(Frontier, "offset", lambda self, _=None: self.top or None)


def map_is_too_wide(patch: pytest.MonkeyPatch) -> None:
    """An offset map whose ranges are one too long."""
    right = Frontier.settled
    patch.setattr(
        Frontier, "settled", lambda self, at: tuple(range(one.start, one.stop + 1) for one in right(self, at))
    )


def tiers_are_early(patch: pytest.MonkeyPatch) -> None:
    """Tiers that hold their records for half of their delay."""
    patch.setattr(intake, "exit_time", lambda record, tier, _: record.timestamp_ms / 1000 + tier.delay / 2)


def keys_have_no_queue(patch: pytest.MonkeyPatch) -> None:
    """Records of one key that are handled side by side."""
    patch.setattr(KeyQueues, "push", lambda self, key, item: True)
    patch.setattr(KeyQueues, "release", lambda self, key: None)


def assignment_without_epochs(patch: pytest.MonkeyPatch) -> None:
    """An assignment that keeps what it lost, and commits for it as a broker lets it do."""

    def take_commits(self: Wishes, _: object) -> dict[Partition, Commit]:
        wanted, self._commits = self._commits, {}
        return wanted

    patch.setattr(Assignment, "lost", lambda self, partitions: None)
    patch.setattr(Wishes, "take_commits", take_commits)


def calls_are_not_looked_up(patch: pytest.MonkeyPatch) -> None:
    """A costly stage that does not look for its answers."""
    patch.setattr(Follower, "answered", lambda self, item, event=None: False)


@pytest.mark.local
@pytest.mark.parametrize(
    "broken, rules",
    [
        (settles_too_early, {"nothing is committed before it is answered"}),
        (frontier_skips, {"nothing is committed before it is answered"}),
        (map_is_too_wide, {"nothing is committed before it is answered", "commit", "commits only grow"}),
        (tiers_are_early, {"tiers are never early"}),
        (keys_have_no_queue, {"order per key", "one record of a key at a time"}),
        (assignment_without_epochs, {"commits only grow"}),
        (calls_are_not_looked_up, {"nothing is paid for twice"}),
    ],
)
def test_what_is_broken_is_found(broken: Break, rules: set[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """A mistake in the runtime breaks the promise that it breaks, within a few dozen seeds."""
    broken(monkeypatch)
    for seed in range(ENOUGH):
        ran = play(seed)
        if ran.broken is not None:
            assert ran.broken.rule in rules, ran.broken.text
            return
    pytest.fail(f"{ENOUGH} seeds did not find it")


def test_a_finding_is_made_small(monkeypatch: pytest.MonkeyPatch) -> None:
    """What breaks without any fault needs none in its trace; the history is of the record concerned."""
    frontier_skips(monkeypatch)
    ran = play(1)
    finding = shrink(REHEARSAL, ran)
    assert ran.plan.faults
    assert finding.faults == ()
    assert finding.rule == "nothing is committed before it is answered"
    assert 0 < len(finding.history) < len(ran.history)
    assert shrink(REHEARSAL, ran, most=0).faults == ran.plan.faults


def test_nothing_to_tell_of_a_run_that_broke_nothing() -> None:
    """To ask for its finding is a mistake of the caller's."""
    quiet = replace(faults.draw(2, STAGES), faults=())
    with pytest.raises(ValueError, match="broke nothing"):
        shrink(REHEARSAL, run(REHEARSAL, quiet), most=0)


@pytest.mark.local
def test_the_verb_tells_and_fails(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """The seed, the promise in a sentence, the faults it takes and the history; exit code 1, or 0 where all holds."""
    assert verb.simulate([0, 1], as_json=False) == 0
    assert "2 seeds played" in capsys.readouterr().out
    frontier_skips(monkeypatch)
    assert verb.simulate([1], as_json=False) == 1
    told = capsys.readouterr().out
    assert "seed 1: nothing is committed before it is answered" in told
    assert "pipeline simulate --seed 1" in told
    assert verb.simulate([1], as_json=True) == 1
    assert '"invariant": "nothing is committed before it is answered"' in capsys.readouterr().out
