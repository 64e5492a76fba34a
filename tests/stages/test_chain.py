"""The stages one after the other, without Kafka: sample documents in, right answers out."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from pipeline.clients.llm import open_chat_model
from pipeline.clients.qdrant import open_passages
from pipeline.core.payloads import Document, Payload, Request
from pipeline.core.stage import Context, Handler
from pipeline.devkit.fake_endpoints import FakeEndpointBook
from pipeline.devkit.fakes import FakeFreshness, FakeRereads, FakeWebhooks
from pipeline.devkit.samples import SampleRequest, documents, is_right, requests
from pipeline.devkit.simulator import simulator
from pipeline.resources import resource
from pipeline.settings_catalog import load_catalog
from pipeline.stages.index import Index
from pipeline.stages.infer import Infer
from pipeline.stages.notify import Notify
from pipeline.stages.postprocess import Postprocess
from pipeline.stages.preprocess import Preprocess
from pipeline.stages.retrieve import Retrieve
from tests.stages.made import event

pytestmark = pytest.mark.local

Chain = Sequence[tuple[str, Handler[Any, Payload]]]


async def post(asked: SampleRequest, chain: Chain, hooks: FakeWebhooks) -> dict[str, Any]:
    """Hand a request from stage to stage, as the runtime does, and return what the webhook says."""
    request = Request(type=asked.type, input=asked.input)
    accepted_at = int(time.time() * 1000)
    passed: Any = event(request, tenant=asked.tenant, type=asked.type, accepted_at_ms=accepted_at)
    for name, handler in chain:
        (output,) = await handler(passed, Context(passed.id, 1, None, time.time))
        passed = passed.derive(output, name)
    data: dict[str, Any] = json.loads(hooks.posted[-1].body)["data"]
    return data


def right(asked: SampleRequest, data: dict[str, Any]) -> bool:
    """Whether an answer is the known one, and cites the right document."""
    return is_right(asked, data["answer"]) and asked.expect.document in {c["document"] for c in data["citations"]}


async def test_the_samples_are_answered_rightly(tmp_path: Path) -> None:
    """With the default catalog, the embedded index and the simulator, at least nine of ten answers are right."""
    catalog, hooks = load_catalog(resource("deploy", "catalog.yaml")), FakeWebhooks()
    async with (
        simulator() as server,
        open_chat_model(server.base_url, "a-key", 8, time.time) as model,
        open_passages(tmp_path, None, None, "passages", time.time) as index,
    ):
        for sample in documents():
            await Index(index, FakeRereads())(
                event(Document(**sample.model_dump())), Context("document", 1, None, time.time)
            )
        chain: Chain = (
            ("preprocess", Preprocess(catalog)),
            ("retrieve", Retrieve(catalog, index, FakeFreshness())),
            ("infer", Infer(catalog, model)),
            ("postprocess", Postprocess(catalog)),
            ("notify", Notify(catalog, hooks, FakeEndpointBook())),
        )
        answers = [(asked, await post(asked, chain, hooks)) for asked in requests()]
    wrong = [(asked.id, data["answer"]) for asked, data in answers if not right(asked, data)]
    assert len(answers) >= 25
    assert len(wrong) <= len(answers) * 0.1, wrong
    assert all(data["cost_usd"] > 0 and data["job_id"] for _, data in answers)
