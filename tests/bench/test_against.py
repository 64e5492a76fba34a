"""The environments of peers."""

from __future__ import annotations

import re
from pathlib import Path

PINS = sorted((Path(__file__).parent / "peers").glob("requirements-*.txt"))


def test_peers_are_pinned_to_the_last_package() -> None:
    """What is compared is the same everywhere and tomorrow: exact versions, and no word of where they come from."""
    assert [path.name for path in PINS] == [
        f"requirements-{name}.txt" for name in ("aiokafka", "confluent", "faststream", "quixstreams")
    ]
    for path in PINS:
        for line in path.read_text("utf-8").splitlines():
            assert re.fullmatch(r"[A-Za-z0-9._-]+==[0-9][A-Za-z0-9.]*", line), f"{path.name}: {line}"
