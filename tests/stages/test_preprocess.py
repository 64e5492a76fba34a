"""Tests of pipeline/stages/preprocess.py and bounds.py."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.core.catalog import Catalog
from pipeline.core.errors import Fail
from pipeline.core.job import LANES
from pipeline.core.limits import MAX_INPUT_CHARACTERS
from pipeline.core.payloads import Prompt, Request
from pipeline.stages.preprocess import Preprocess
from tests.stages.made import NOW, NOW_MS, catalog, context, event


async def accept(request: Request, known: Catalog | None = None, now: float = NOW, **job: Any) -> Prompt:
    """Return the prompt of a request."""
    (prompt,) = await Preprocess(known or catalog())(event(request, **job), context(now=now))
    return prompt


async def refuse(request: Request, known: Catalog | None = None, now: float = NOW, **job: Any) -> Fail:
    """Return why a request fails."""
    with pytest.raises(Fail) as failed:
        await Preprocess(known or catalog())(event(request, **job), context(now=now))
    return failed.value


async def test_a_plain_request_becomes_a_prompt() -> None:
    """With nothing but type and input, everything else is the type's; the input is normalised and measured."""
    known = catalog(lane="batch", deadline_seconds=60)
    prompt = await accept(Request(type="quick", input=" Cafe\u0301\x00? "), known)
    assert prompt == Prompt(
        type="quick",
        input="Caf\u00e9?",
        input_tokens=3,
        lane="batch",
        deadline_ms=NOW_MS + 60_000,
        catalog=known.version,
    )


async def test_what_the_caller_adds_travels_along() -> None:
    """Endpoint, metadata, filters, conversation and freshness come out as they went in."""
    known = catalog(endpoints=["crm"])
    request = Request(
        type="quick",
        input="When?",
        endpoint="crm",
        metadata={"ticket": "7"},
        filters={"source": "handbook"},
        as_fresh_as={"handbook": 7},
        conversation="c-1",
    )
    prompt = await accept(request, known)
    assert prompt.as_fresh_as == {"handbook": 7}
    assert (prompt.endpoint, prompt.metadata, prompt.filters, prompt.conversation) == (
        "crm",
        {"ticket": "7"},
        {"source": "handbook"},
        "c-1",
    )


async def test_the_header_names_the_conversation_where_the_request_does_not() -> None:
    """The request's own conversation counts first, then its header's."""
    assert (await accept(Request(type="quick", input="x"), conversation="h")).conversation == "h"
    assert (await accept(Request(type="quick", input="x", conversation="r"), conversation="h")).conversation == "r"


@pytest.mark.parametrize("text", ["", "   ", "\n\t", "\x00\x01", "\r\n"])
async def test_an_empty_input_fails(text: str) -> None:
    """Nothing, blanks and control characters alone are no question: the caller hears so."""
    assert (await refuse(Request(type="quick", input=text))).code == "empty_input"


async def test_an_input_over_the_types_tokens_fails() -> None:
    """The type's limit is in tokens; one less is accepted."""
    known = catalog(max_input_tokens=10)
    assert (await accept(Request(type="quick", input="abc" * 10), known)).input_tokens == 10
    failed = await refuse(Request(type="quick", input="abc" * 10 + "d"), known)
    assert (failed.code, failed.reason) == ("input_too_large", "the input has about 11 tokens; this type allows 10")


async def test_an_input_of_any_size_is_bounded_first() -> None:
    """A text beyond the absolute bound is not even normalised."""
    known = catalog(max_input_tokens=10**9)
    failed = await refuse(Request(type="quick", input="a" * (MAX_INPUT_CHARACTERS + 1)), known)
    assert failed.code == "input_too_large"
    assert (await accept(Request(type="quick", input="a" * MAX_INPUT_CHARACTERS), known)).input_tokens > 0


async def test_an_unknown_type_is_told_the_known_ones() -> None:
    """The reason lists the types, and does not repeat a name of any length."""
    failed = await refuse(Request(type="x" * 5_000, input="?"))
    assert failed.code == "unknown_type"
    assert "other, quick" in failed.reason
    assert len(failed.reason) < 300


async def test_only_listed_tenants_are_served() -> None:
    """A catalog that lists tenants serves no other; one that lists none serves all."""
    request = Request(type="quick", input="?")
    assert (await refuse(request, catalog({"tenants": ["rival"]}))).code == "unknown_tenant"
    assert (await accept(request, catalog({"tenants": ["acme"]}))).input == "?"
    assert (await accept(request, tenant="whoever")).input == "?"
    assert (await refuse(request, tenant="t" * 201)).code == "invalid_tenant"


@pytest.mark.parametrize("endpoint", ["audit", "nowhere", ""])
async def test_an_endpoint_that_the_type_does_not_offer_fails(endpoint: str) -> None:
    """Names only, and only those of the type: also one that another type may use."""
    failed = await refuse(Request(type="quick", input="?", endpoint=endpoint), catalog(endpoints=["crm"]))
    assert failed.code == "unknown_endpoint"
    assert failed.reason.endswith("it has: default, crm")


HOSTS = {"acme": {"webhook_hosts": ["hooks.acme.example"], "webhook_endpoint": "crm"}}


async def test_a_tenant_may_bring_a_url_on_its_hosts() -> None:
    """The prompt keeps it as it is."""
    url = "https://hooks.acme.example/in?key=1"
    assert (await accept(Request(type="quick", input="?", endpoint=url), catalog({"tenants": HOSTS}))).endpoint == url


@pytest.mark.parametrize("url", ["https://example.com", "http://hooks.acme.example/", "https://hooks.acme.example:1/"])
async def test_any_other_url_fails(url: str) -> None:
    """Nor may any be brought where the catalog says nothing of the tenant; the reason does not repeat it."""
    for known in (catalog({"tenants": HOSTS}), catalog()):
        failed = await refuse(Request(type="quick", input="?", endpoint=url), known)
        assert failed.code == "unknown_endpoint"
        assert (
            failed.reason == "the tenant 'acme' may not bring this URL: https, and a host that the catalog lists for it"
        )


async def test_the_types_own_endpoint_may_be_named() -> None:
    """Naming the usual endpoint is allowed without listing it twice."""
    assert (await accept(Request(type="quick", input="?", endpoint="default"))).endpoint == "default"


async def test_the_lane_is_the_requests_else_the_headers_else_the_types() -> None:
    """The nearest wish counts."""
    plain, wished = Request(type="quick", input="?"), Request(type="quick", input="?", lane="interactive")
    assert (await accept(plain)).lane == "standard"
    assert (await accept(plain, lane="batch")).lane == "batch"
    assert (await accept(wished, lane="batch")).lane == "interactive"


async def test_a_lane_that_is_not_the_types_fails() -> None:
    """Nobody jumps the queue of a type that keeps out of a lane, neither by payload nor by header."""
    known = catalog(lane="batch", lanes=["batch"])
    assert (await refuse(Request(type="quick", input="?", lane="interactive"), known)).code == "lane_not_allowed"
    assert (await refuse(Request(type="quick", input="?"), known, lane="standard")).code == "lane_not_allowed"


@pytest.mark.parametrize(
    "wished,header,end",
    [
        (None, None, NOW_MS + 600_000),
        (5_000, None, NOW_MS + 5_000),
        (900_000, None, NOW_MS + 600_000),
        (None, NOW_MS + 7_000, NOW_MS + 7_000),
        (5_000, NOW_MS + 7_000, NOW_MS + 5_000),
        (9_000, NOW_MS + 7_000, NOW_MS + 7_000),
        (None, NOW_MS + 900_000, NOW_MS + 600_000),
    ],
)
async def test_the_earliest_deadline_counts(wished: int | None, header: int | None, end: int) -> None:
    """Of the request's, the header's and the type's; the first and the last count from acceptance."""
    prompt = await accept(Request(type="quick", input="?", deadline_ms=wished), now=NOW + 1, deadline_ms=header)
    assert prompt.deadline_ms == end


@pytest.mark.parametrize("wished", [0, -1, -(2**60), 1_000])
async def test_a_deadline_that_has_passed_fails(wished: int) -> None:
    """No work is begun that nobody waits for."""
    assert (await refuse(Request(type="quick", input="?", deadline_ms=wished), now=NOW + 1)).code == "deadline"


@pytest.mark.parametrize("field", ["filters", "metadata"])
@pytest.mark.parametrize(
    "entries",
    [
        {f"n{number}": "x" for number in range(33)},
        {"n" * 65: "x"},
        {"": "x"},
        {"n": "x" * 1_001},
    ],
)
async def test_additions_are_bounded(field: str, entries: dict[str, str]) -> None:
    """Too many entries, names too long or empty and values too long are the caller's to mend."""
    request = Request.model_validate({"type": "quick", "input": "?", field: entries})
    failed = await refuse(request)
    assert failed.code == f"invalid_{field}"
    assert len(failed.reason) < 200


@pytest.mark.parametrize("name", ["a.b", "a[0]", "a b", "1st", 'a"b', "ä"])
async def test_a_filter_is_a_plain_field(name: str) -> None:
    """A name that the index would read as a path is refused."""
    assert (await refuse(Request(type="quick", input="?", filters={name: "x"}))).code == "invalid_filters"


async def test_a_type_may_name_what_it_is_filtered_by() -> None:
    """Any other name is the caller's mistake, and is told with the right ones; without a list, any name is taken."""
    wanted, known = {"source": "handbook"}, catalog(retrieval={"filters": ["source", "language"]})
    assert (await accept(Request(type="quick", input="?", filters=wanted), known)).filters == wanted
    asked = Request(type="quick", input="?", filters={"sauce": "x"})
    failed = await refuse(asked, known)
    assert failed.code == "invalid_filters"
    assert failed.reason == "filters: this type cannot be filtered by 'sauce', but by: language, source"
    assert (await refuse(asked, catalog(retrieval={"filters": []}))).reason.endswith("but by: nothing")
    assert (await accept(asked)).filters == {"sauce": "x"}


@pytest.mark.parametrize(
    "wanted", [{f"s{number}": 1 for number in range(9)}, {"": 1}, {"s" * 1_001: 1}, {"s": 2**63}, {"s": -(2**63) - 1}]
)
async def test_the_freshness_that_is_asked_for_is_bounded(wanted: dict[str, int]) -> None:
    """Too many sources, names too long or empty and versions that no record carries are the caller's to mend."""
    failed = await refuse(Request(type="quick", input="?", as_fresh_as=wanted))
    assert failed.code == "invalid_as_fresh_as"
    assert len(failed.reason) < 200


async def test_a_conversation_is_bounded() -> None:
    """It travels in a header."""
    assert (await refuse(Request(type="quick", input="?", conversation="c" * 201))).code == "invalid_conversation"


names = st.text(max_size=80)
KNOWN = catalog()


@given(
    st.builds(
        Request,
        type=st.sampled_from(["quick", "other", "none"]),
        input=st.text(max_size=60),
        lane=st.none() | st.sampled_from(LANES),
        deadline_ms=st.none() | st.integers(-(2**63), 2**63 - 1),
        endpoint=st.none() | names,
        conversation=st.none() | names,
        filters=st.dictionaries(names, names, max_size=3),
        as_fresh_as=st.dictionaries(names, st.integers(), max_size=3),
        metadata=st.dictionaries(names, names, max_size=3),
    )
)
async def test_every_request_is_accepted_or_fails(request: Request) -> None:
    """Whatever a request holds, it becomes one prompt within all bounds, or a Fail with a code and a short sentence."""
    (end,) = await asyncio.gather(accept(request, KNOWN), return_exceptions=True)
    if isinstance(end, Prompt):
        assert end.input
        assert NOW_MS < end.deadline_ms <= NOW_MS + 600_000
    else:
        assert isinstance(end, Fail)
        assert end.code != "fail"
        assert 0 < len(end.reason) < 400
