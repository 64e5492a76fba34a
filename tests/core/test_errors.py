"""The five outcomes carry a sentence for people and a code for programs."""

from __future__ import annotations

import pytest

from pipeline.core.errors import ConfigurationError, Defer, Fail, Halt, Outcome, PipelineError, Reject, Retry


@pytest.mark.parametrize(
    "error, code",
    [
        (Fail("why"), "fail"),
        (Reject("why"), "reject"),
        (Retry("why"), "retry"),
        (Defer("why", until=1.0), "defer"),
        (Halt("why"), "halt"),
    ],
)
def test_an_outcome_has_a_code_even_where_none_was_given(error: Outcome, code: str) -> None:
    """The default code is the outcome's name; the reason is the exception's text."""
    assert (code, "why", "why") == (error.code, error.reason, str(error))


def test_a_given_code_is_kept() -> None:
    """Programs that read failures rely on the code, so it is the one that was given."""
    errors = [Fail("why", code="x"), Retry("why", code="x"), Defer("why", until=1.0, code="x")]
    assert ["x", "x", "x"] == [error.code for error in errors]


def test_wishes_for_a_time_are_kept() -> None:
    """`Retry` keeps its least wait, `Defer` its time; a `Retry` without a wish has none."""
    assert (None, 3.0, 7.0) == (Retry("why").after, Retry("why", after=3.0).after, Defer("why", until=7.0).until)


def test_one_family_for_everything_raised_on_purpose() -> None:
    """A caller can tell our errors from others; an error of configuration is no verdict on a record."""
    assert issubclass(Outcome, PipelineError)
    assert issubclass(ConfigurationError, PipelineError)
    assert not issubclass(ConfigurationError, Outcome)
