"""What a revocation waits for."""

from __future__ import annotations

import math

from tests.broker.test_membership import A, B, Group


def test_revocation_waits_for_what_runs() -> None:
    """While the loop goes on, what runs for a partition may end before that leaves; with the last of it, it does."""
    group = Group()
    group.assign(A, B)
    group.loop.elsewhere, group.owner.looks = True, 2
    group.revoke(A)
    assert group.owner.heard[1:] == [("leaving", [0])] * 3 + [("revoked", [0])]


def test_revocation_waits_for_a_moment_only() -> None:
    """What takes longer is left to the next owner."""
    group = Group()
    group.assign(A)
    group.loop.elsewhere, group.owner.looks = True, math.inf
    group.revoke(A)
    assert group.owner.heard[-2:] == [("leaving", [0]), ("revoked", [0])]


def test_revocation_on_the_loop_waits_for_nothing() -> None:
    """There nothing could go on meanwhile."""
    group = Group()
    group.assign(A)
    group.owner.looks = math.inf
    group.revoke(A)
    assert group.owner.heard[1:] == [("revoked", [0])]
