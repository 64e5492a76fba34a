"""Tests of pipeline/clients/passage_points.py."""

from __future__ import annotations

import json
from uuid import uuid5

from hypothesis import given
from hypothesis import strategies as st

from pipeline.clients import passage_points as points
from pipeline.core.job import NAMESPACE


@given(st.text(), st.text(), st.integers(0))
def test_ids_of_points_are_uuids_of_what_they_are_of(source: str, document: str, chunk: int) -> None:
    """UUIDv5 as the standard library makes them: those of every index that is out there."""
    made = [points.point_id(source, document, chunk), points.mark_id(source, document), points.source_id(source)]
    names = [["passage", source, document, chunk], ["mark", source, document], ["emptied", source]]
    assert made == [str(uuid5(NAMESPACE, json.dumps(name))) for name in names]
