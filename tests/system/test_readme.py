"""What the README says is true: its example runs as it stands, and its tables name what exists."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from pipeline import wiring
from pipeline.devkit.kafka import Broker
from pipeline.resources import resource
from pipeline.settings import FOREIGN, Settings
from tests.system.site import site, until

README = (Path(__file__).parents[2] / "README.md").read_text(encoding="utf-8")


def test_the_configuration_table_names_every_setting() -> None:
    """Each setting and each foreign variable stands in the README, and no PIPELINE_* there is unknown."""
    wanted = {f"PIPELINE_{name.upper()}" for name in Settings.model_fields}
    named = set(re.findall(r"PIPELINE_[A-Z_]+\b", README))
    assert wanted <= named
    per_stage = {f"PIPELINE_{stage.upper()}_CONCURRENCY" for stage in wiring.STAGES}
    assert named - wanted - per_stage <= {"PIPELINE_"}
    assert all(name in README for name in FOREIGN)


@pytest.mark.kafka
@pytest.mark.system
@pytest.mark.within(120)
async def test_the_example_of_another_service_is_answered(kafka: Broker, tmp_path: Path) -> None:
    """The README's program, run as it stands on the default prefix's place, ends as a signed webhook."""
    found = re.search(r"<!-- example: send a request -->\n```python\n(.*?)```", README, re.DOTALL)
    assert found
    async with site(kafka, tmp_path) as place:
        await place.start(*wiring.STAGES)
        program = found[1].replace('"pipeline.requests"', f'"{place.prefix}.requests"')
        environment = {**place.environment, "REQUEST_SCHEMA": str(resource("schemas", "requests", "v1.avsc"))}
        subprocess.run([sys.executable, "-c", program], env=environment, cwd=tmp_path, check=True, timeout=60)
        await until(lambda: len(place.receiver.accepted) == 1, "the webhook")
        body = place.receiver.accepted[0].body
        assert body["type"] == "job.completed"
        assert body["data"]["tenant"] == "fennlock"
