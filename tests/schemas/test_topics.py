"""The topology and the schemas speak of the same nouns."""

from __future__ import annotations

from pipeline.core.limits import MAX_COPY_BYTES, MAX_FOREIGN_COPY_BYTES
from pipeline.core.payloads import Payload
from pipeline.runtime.plan import plan
from pipeline.topology import PEOPLES, STAGES, TOPICS, chain, growth_order, reads_foreign, topic_specs
from tests.schemas.examples import NOUNS, SCHEMAS


def test_every_topic_has_a_schema_and_every_schema_a_topic() -> None:
    """The nouns under `schemas/` are those of the topology, with the same payloads."""
    declared: dict[str, type[Payload]] = {topic.noun: topic.payload for topic in (*TOPICS, *PEOPLES)}
    assert declared == NOUNS
    assert sorted(declared) == list(SCHEMAS.nouns)


def test_what_a_record_leads_to_grows_before_what_it_stands_on() -> None:
    """The order has every topic of the chain once, and each stage's output and copies before its sources."""
    order = growth_order("p")
    assert sorted(order) == sorted(chain("p"))
    place = {name: number for number, name in enumerate(order)}
    for one in STAGES:
        bound = plan(one, "p")
        sources = [place[name] for name in bound.sources if name in place]
        copies = [place[name] for name in (*bound.tiers, bound.dead_letters, bound.failures) if name in place]
        outputs = [place[name] for made in one.outputs for name in order if name.startswith(f"p.{made.noun}")]
        if sources and not one.repartition:
            assert max(outputs) < min(sources)
            assert all(name < min(sources) for name in copies if name != place["p.failures"])


def test_foreign_topics_are_nobody_elses_business() -> None:
    """Only `index` reads them. They are no part of what is created, deleted or grown, nor of what is bound to them."""
    assert [one.name for one in STAGES if reads_foreign(one)] == ["index"]
    index = next(one for one in STAGES if reads_foreign(one))
    bound, alone = plan(index, "p", ["db.users"]), plan(index, "p")
    made = {spec.name for spec in topic_specs("p", 1)}
    assert set(bound.topics) - made == {"db.users"}
    assert set(bound.written) <= made
    assert (bound.written, bound.tiers, bound.group) == (alone.written, alone.tiers, alone.group)
    assert not set(chain("p")) & set(bound.topics)


def test_copies_of_foreign_records_have_room() -> None:
    """A large row that cannot be indexed is put aside like any other record, and does not stop the stage."""
    limits = {spec.name: int(spec.config["max.message.bytes"]) for spec in topic_specs("p", 1)}
    index = plan(next(one for one in STAGES if reads_foreign(one)), "p", ["db.users"])
    assert {limits[name] for name in (*index.tiers, index.dead_letters)} == {MAX_FOREIGN_COPY_BYTES}
    assert limits["p.infer.dlq"] == limits["p.infer.retry.10s"] == MAX_COPY_BYTES
