"""What a replay will cost at the most."""

from __future__ import annotations

from pipeline.core.catalog import Retrieval
from pipeline.core.limits import estimate_tokens
from pipeline.core.patch import Patch
from pipeline.core.payloads import Document, Passage, Request, RetrievedContext
from pipeline.core.replay_cost import NOTHING, Cost, asking, indexing
from pipeline.core.replay_patch import NO_PATCH
from pipeline.resources import resource
from pipeline.settings_catalog import load_catalog

CATALOG = load_catalog(resource("deploy", "catalog.yaml"))
KIND = CATALOG.types["quick_answer"]
TEMPLATE = CATALOG.templates[KIND.template]
FIXED = estimate_tokens(TEMPLATE.system) + estimate_tokens(TEMPLATE.user)
PASSAGE = Passage(source="s", document="d", chunk=0, version=1, score=1.0, title="t", text="x" * 300)


def test_a_context_is_counted_with_its_passages() -> None:
    """The template, the question and what was found; the answer is as long as it may be."""
    cost = asking(RetrievedContext(input="x" * 30, passages=(PASSAGE,)), "quick_answer", NO_PATCH, CATALOG)
    tokens = FIXED + 10 + 100
    assert (1, tokens, 500) == (cost.calls, cost.prompt_tokens, cost.completion_tokens)
    assert cost.usd == CATALOG.models[KIND.model].cost(tokens, 500)


def test_a_request_is_counted_with_all_passages_that_it_may_get() -> None:
    """What will be found is not known yet."""
    cost = asking(Request(type="quick_answer", input="x" * 30), "quick_answer", NO_PATCH, CATALOG)
    assert cost.prompt_tokens == FIXED + 10 + KIND.retrieval.tokens


def test_a_type_without_retrieval_gets_no_passages() -> None:
    """None are counted."""
    bare = KIND.model_copy(update={"retrieval": Retrieval(passages=0)})
    catalog = CATALOG.model_copy(update={"types": {"bare": bare}})
    assert asking(Request(type="bare", input="x" * 30), "bare", NO_PATCH, catalog).prompt_tokens == FIXED + 10


def test_a_patch_counts() -> None:
    """Its budget is what the answer may take."""
    assert (
        asking(RetrievedContext(input=""), "quick_answer", Patch(max_output_tokens=9), CATALOG).completion_tokens == 9
    )


def test_what_cannot_be_estimated_is_said() -> None:
    """An undecodable record, and a type that the catalog does not have, are calls without a price."""
    assert asking(None, "quick_answer", NO_PATCH, CATALOG) == Cost(calls=1, unpriced=1)
    assert asking(RetrievedContext(input=""), "gone", NO_PATCH, CATALOG) == Cost(calls=1, unpriced=1)
    assert asking(RetrievedContext(input=""), "gone", Patch(type="quick_answer"), CATALOG).unpriced == 0


def test_a_document_costs_where_an_embedding_model_is_set() -> None:
    """Its tokens; their price where the catalog has one."""
    document = Document(source="s", id="1", tenant="t", title="x" * 3, body="x" * 30, version=1)
    assert indexing(document, None, CATALOG) == NOTHING
    assert indexing(document, "ada", CATALOG) == Cost(embedding_tokens=11, unpriced=1)
    priced = indexing(document, "gpt-4o-mini", CATALOG)
    assert priced.usd > 0
    assert (priced + priced).embedding_tokens == 22
