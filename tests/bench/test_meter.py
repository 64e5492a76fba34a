"""What a meter counts, on a clock of its own."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.bench.meter import WARM_UP_SECONDS, Meter, Sample, read


class _Clock:
    """Shows the time it is told, and half of it as CPU time."""

    now = 0.0

    def __call__(self) -> float:
        return self.now

    def cpu(self) -> float:
        return self.now / 2


def _run(meter: Meter, clock: _Clock, *steps: tuple[float, int]) -> bool:
    over = False
    for clock.now, done in steps:
        over = meter.note(done)
    return over


def test_a_meter_measures_from_the_end_of_the_warm_up_on() -> None:
    """The rate and the CPU time are those between the end of the warm-up and the moment it has seen enough."""
    clock = _Clock()
    meter = Meter(2.0, 10_000, clock, clock.cpu)
    assert WARM_UP_SECONDS < 0.5
    assert not _run(meter, clock, (5.0, 0), (6.0, 500), (6.5, 600), (7.0, 700))
    assert _run(meter, clock, (8.5, 1000))
    assert meter.sample(1234) == Sample(200.0, 2500.0, 1234)


def test_a_meter_looks_at_moments_of_progress_only() -> None:
    """Time that passes without a record done ends nothing: what comes in bursts is measured from burst to burst."""
    clock = _Clock()
    meter = Meter(1.0, 10_000, clock, clock.cpu)
    assert not _run(meter, clock, (1.0, 100), (2.0, 200), (2.5, 200), (9.0, 200))
    assert _run(meter, clock, (10.0, 1000))
    assert meter.sample(1000).rate == pytest.approx(100)


def test_a_meter_ends_before_the_records_do() -> None:
    """Where the input is short, its middle is measured: from a third of it to nine tenths."""
    clock = _Clock()
    meter = Meter(60.0, 900, clock, clock.cpu)
    assert _run(meter, clock, (0.01, 100), (0.02, 310), (0.07, 810))
    assert meter.sample(900).rate == pytest.approx(10_000)


def test_a_variant_that_ends_early_has_no_sample() -> None:
    """Nothing is made up where too little was seen."""
    with pytest.raises(RuntimeError, match="before it was measured"):
        Meter(1.0, 100).sample(0)


def test_a_sample_comes_back_from_its_file(tmp_path: Path) -> None:
    """What a variant leaves is what its starter reads."""
    sample = Sample(1.5, 2.5, 3)
    sample.write(tmp_path / "result.json")
    assert read(tmp_path / "result.json") == sample
