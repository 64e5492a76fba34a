"""Records: what is named by where it stands."""

from __future__ import annotations

import dataclasses

import pytest

from pipeline.core.record import Outgoing, Position, Record


def test_a_record_knows_where_it_stands() -> None:
    """The position is topic, partition and offset, and is spelt as the `pipeline-source` header has it."""
    record = Record("pipeline.requests", 3, 42, None, b"value")
    assert Position("pipeline.requests", 3, 42) == record.position
    assert "pipeline.requests/3/42" == str(record.position)
    assert "at pipeline.requests/3/42" == f"at {record.position}"


@pytest.mark.parametrize("value", [Record("t", 0, 0, None, None), Outgoing("t", None, None)])
def test_records_are_immutable(value: Record | Outgoing) -> None:
    """Neither a consumed record nor one to be produced can be changed after the fact."""
    with pytest.raises(dataclasses.FrozenInstanceError):
        value.topic = "other"  # type: ignore[misc]  # that it is refused is the point
