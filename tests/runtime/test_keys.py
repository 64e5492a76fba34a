"""The key queues of one partition, against a model of plain lists."""

from __future__ import annotations

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from pipeline.runtime.keys import KeyQueues
from tests.examples import at_most


def test_the_first_of_a_key_goes_at_once_and_the_next_waits() -> None:
    """One record of a key is out at a time; its successor comes out when it is released."""
    queues: KeyQueues[str] = KeyQueues()
    assert queues.push(b"a", "first")
    assert not queues.push(b"a", "second")
    assert queues.push(b"b", "another key")
    assert queues.depth(b"a") == 1
    assert queues.release(b"a") == "second"
    assert queues.release(b"a") is None


def test_a_null_key_never_waits() -> None:
    """Records without a key ask for no order: all go at once, and none is followed."""
    queues: KeyQueues[int] = KeyQueues()
    assert all(queues.push(None, number) for number in range(3))
    assert queues.release(None) is None
    assert queues.depth(None) == 0


def test_an_empty_key_is_a_key() -> None:
    """An empty key is not a null one: its records keep their order."""
    queues: KeyQueues[int] = KeyQueues()
    assert queues.push(b"", 1)
    assert not queues.push(b"", 2)


class KeyQueuesMachine(RuleBasedStateMachine):
    """Random pushes and releases over a few keys."""

    def __init__(self) -> None:
        """Begin empty."""
        super().__init__()
        self.queues: KeyQueues[int] = KeyQueues()
        self.out: dict[bytes, int] = {}
        self.waiting: dict[bytes, list[int]] = {}
        self.number = 0

    @rule(key=st.sampled_from([b"a", b"b", b"c"]))
    def push(self, key: bytes) -> None:
        """Push the next number."""
        self.number += 1
        went = self.queues.push(key, self.number)
        assert went == (key not in self.out)
        if went:
            self.out[key] = self.number
        else:
            self.waiting.setdefault(key, []).append(self.number)

    @precondition(lambda self: self.out)
    @rule(data=st.data())
    def release(self, data: st.DataObject) -> None:
        """Release a key that is out; its oldest waiter follows."""
        key = data.draw(st.sampled_from(sorted(self.out)))
        done = self.out.pop(key)
        line = self.waiting.get(key, [])
        following = self.queues.release(key)
        assert following == (line.pop(0) if line else None)
        if following is not None:
            assert following > done
            self.out[key] = following

    @precondition(lambda self: self.number)
    @rule(data=st.data(), key=st.sampled_from([b"a", b"b", b"c"]))
    def withdraw(self, data: st.DataObject, key: bytes) -> None:
        """Take out any item: only one that waits behind another of its key is found."""
        item = data.draw(st.integers(1, self.number))
        line = self.waiting.get(key, [])
        assert self.queues.withdraw(key, item) == (item in line)
        assert not self.queues.withdraw(None, item)
        self.waiting[key] = [one for one in line if one != item]

    @invariant()
    def depths_are_counted(self) -> None:
        """The depth of a key is what waits behind its current record."""
        assert {key: self.queues.depth(key) for key in (b"a", b"b", b"c")} == {
            key: len(self.waiting.get(key, [])) for key in (b"a", b"b", b"c")
        }


TestKeyQueuesMachine = KeyQueuesMachine.TestCase
TestKeyQueuesMachine.settings = settings(max_examples=at_most(25), stateful_step_count=40)
