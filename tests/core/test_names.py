"""Names that others see: legal for Kafka, and never the same for two things."""

from __future__ import annotations

import re
import string

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.core import names
from pipeline.core.errors import ConfigurationError
from pipeline.core.job import LANES, Lane
from pipeline.core.retry import TIERS, Tier

WORDS = st.text(string.ascii_letters + string.digits + "-_", min_size=1, max_size=100)


def _all_topics(prefix: str, word: str) -> list[str]:
    """Every topic that a noun or a stage called `word` can have."""
    lanes: tuple[Lane | None, ...] = (*LANES, None)
    laned = [names.topic(prefix, word, lane) for lane in lanes]
    return [*laned, *(names.retry_topic(prefix, word, tier) for tier in TIERS), names.dead_letter_topic(prefix, word)]


def test_names_are_as_the_flow_picture_has_them() -> None:
    """Topics, lanes, tiers, dead letters, groups and subjects of the default prefix."""
    assert "pipeline.requests" == names.topic("pipeline", "requests")
    assert "pipeline.contexts.batch" == names.topic("pipeline", "contexts", "batch")
    assert "pipeline.infer.retry.10s" == names.retry_topic("pipeline", "infer", TIERS[0])
    assert "pipeline.infer.dlq" == names.dead_letter_topic("pipeline", "infer")
    assert "pipeline.infer" == names.group("pipeline", "infer")
    assert "pipeline.infer.9f" == names.transactional_id("pipeline", "infer", "9f")
    assert "pipeline.requests-value" == names.subject("pipeline", "requests")


@given(st.lists(st.tuples(WORDS, WORDS), min_size=2, max_size=2, unique=True))
def test_two_things_never_share_a_topic(things: list[tuple[str, str]]) -> None:
    """Prefix, noun or stage, lane and tier can be told from a topic's name, so no two have the same."""
    made = [name for prefix, word in things for name in _all_topics(prefix, word)]
    assert len(made) == len(set(made))


def test_the_longest_names_are_legal() -> None:
    """With the longest prefix and the longest noun or stage a topic's name is still one that Kafka takes."""
    made = _all_topics(names.check_prefix("p" * 100), "w" * 100)
    assert [] == [name for name in made if not re.fullmatch(rf"[a-zA-Z0-9._-]{{1,{names.MAX_TOPIC}}}", name)]


@pytest.mark.parametrize("prefix", ["pipeline", "a", "Team-2_blue", "0"])
def test_a_fit_prefix_is_returned(prefix: str) -> None:
    """Letters, digits, dashes and underscores are fit."""
    assert prefix == names.check_prefix(prefix)


@pytest.mark.parametrize("prefix", ["", "a.b", "a b", "é", "p" * 101, "a\n", "a/b", "²"])
def test_an_unfit_prefix_is_refused_by_its_variable(prefix: str) -> None:
    """The sentence names the variable, shows the value, and says what is allowed."""
    with pytest.raises(ConfigurationError, match=r"PIPELINE_TOPIC_PREFIX is .* use 1 to 100 letters") as caught:
        names.check_prefix(prefix)
    assert repr(prefix) in str(caught.value)


@pytest.mark.parametrize("topic", ["a", "app.public.documents", "pipelines.x", "pipeline", "x" * 249, "A-b_c.9"])
def test_a_foreign_topic_keeps_its_name(topic: str) -> None:
    """Whatever Kafka takes, but for the names that begin as ours do."""
    assert topic == names.check_foreign("pipeline", topic)


@pytest.mark.parametrize("topic", ["", ".", "..", "a b", "é", "x" * 250, "a\n", "a/b", "pipeline.", "pipeline.results"])
def test_an_unfit_foreign_topic_is_refused(topic: str) -> None:
    """The sentence names the variable that leads to it, and the topic."""
    with pytest.raises(ConfigurationError, match="PIPELINE_TABLES names the topic") as caught:
        names.check_foreign("pipeline", topic)
    assert topic in str(caught.value) or repr(topic) in str(caught.value)


def test_tiers_have_names_of_their_own() -> None:
    """A tier's name is its delay in words, so no two share a topic."""
    assert [Tier("10s", 10.0), Tier("1m", 60.0), Tier("10m", 600.0)] == list(TIERS)
