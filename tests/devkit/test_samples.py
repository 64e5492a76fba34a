"""The samples: complete, consistent, and answerable by BM25 retrieval and the simulator."""

import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import openai
import pytest
from qdrant_client import QdrantClient, models
from qdrant_edge import Bm25, Bm25Config, SparseVector

from pipeline.devkit import samples
from pipeline.devkit.samples import SampleDocument, SampleRequest, is_right
from pipeline.devkit.simulator import simulator
from pipeline.devkit.simulator_answer import quotes, write_answer
from pipeline.devkit.simulator_prompt import Passage, Prompt, parse_prompt, render_prompt

pytestmark = pytest.mark.local

_PASSAGES = 5
_TOKENS = 500


@dataclass(frozen=True)
class _Index:
    """BM25 over the paragraphs of the samples, in a local collection."""

    client: QdrantClient
    bm25: Bm25

    def find(self, tenant: str, text: str) -> tuple[Passage, ...]:
        """The best passages of a tenant, numbered for the prompt."""
        mine = models.Filter(must=[models.FieldCondition(key="tenant", match=models.MatchValue(value=tenant))])
        found = self.client.query_points(
            "samples", query=_vector(self.bm25.embed_query(text)), using="bm25", query_filter=mine, limit=_PASSAGES
        )
        payloads = [point.payload or {} for point in found.points]
        return tuple(
            Passage(number, payload["text"], payload["document"], payload["chunk"], payload["version"])
            for number, payload in enumerate(payloads, start=1)
        )


def _vector(sparse: SparseVector) -> models.SparseVector:
    return models.SparseVector(indices=sparse.indices, values=sparse.values)


def _points(bm25: Bm25) -> Iterator[models.PointStruct]:
    paragraphs = (
        (document, chunk, text) for document in samples.documents() for chunk, text in enumerate(document.paragraphs)
    )
    for place, (document, chunk, text) in enumerate(paragraphs):
        payload = {"tenant": document.tenant, "document": document.id, "version": document.version}
        vector: dict[str, models.Vector] = {"bm25": _vector(bm25.embed_document(text))}
        yield models.PointStruct(id=place, vector=vector, payload=payload | {"chunk": chunk, "text": text})


@pytest.fixture(scope="module")
def index() -> Iterator[_Index]:
    """All paragraphs of both tenants in one collection."""
    client, bm25 = QdrantClient(":memory:"), Bm25(Bm25Config())
    idf = models.SparseVectorParams(modifier=models.Modifier.IDF)
    client.create_collection("samples", sparse_vectors_config={"bm25": idf})
    client.upsert("samples", list(_points(bm25)))
    yield _Index(client, bm25)
    client.close()


def _answer(question: str, passages: tuple[Passage, ...]) -> str:
    prompt = parse_prompt(render_prompt(Prompt(question, passages)))
    return write_answer(prompt, limit=_TOKENS, as_object=False)[0]


def _right(retrieve: Callable[[SampleRequest], tuple[Passage, ...]]) -> list[str]:
    return [
        request.id for request in samples.requests() if is_right(request, _answer(request.input, retrieve(request)))
    ]


async def test_retrieval_and_simulator_answer_all_requests(index: _Index) -> None:
    """Every sample request is answered rightly, by the simulator over HTTP, from five paragraphs of its tenant."""
    async with simulator() as sim, openai.DefaultAioHttpClient(verify=False) as http:
        client = openai.AsyncOpenAI(base_url=sim.base_url, api_key="any", max_retries=0, http_client=http)
        right = []
        for request in samples.requests():
            prompt = render_prompt(Prompt(request.input, index.find(request.tenant, request.input)))
            answer = await client.chat.completions.create(
                model="small", messages=[{"role": "user", "content": prompt}], max_tokens=_TOKENS
            )
            if is_right(request, answer.choices[0].message.content or ""):
                right.append(request.id)
    assert right == [request.id for request in samples.requests()]


def test_right_answers_cite_their_document(index: _Index) -> None:
    """Every answer quotes the document that is expected."""
    for request in samples.requests():
        passages = index.find(request.tenant, request.input)
        cited = {passages[quote.number - 1].document for quote in quotes(Prompt(request.input, passages))}
        assert request.expect.document in cited, request.id


def test_the_other_tenants_documents_give_wrong_answers(index: _Index) -> None:
    """No request can be answered from the wrong tenant's documents, so a missing filter shows."""
    other = {"fennlock": "harbourside", "harbourside": "fennlock"}
    assert _right(lambda request: index.find(other[request.tenant], request.input)) == []


def test_a_wrong_retrieval_gives_wrong_answers(index: _Index) -> None:
    """Without the document that holds the answer, no request is answered rightly."""

    def without(request: SampleRequest) -> tuple[Passage, ...]:
        found = index.find(request.tenant, request.input)
        return tuple(passage for passage in found if passage.document != request.expect.document)

    assert _right(without) == []


def test_there_is_enough_to_read() -> None:
    """At least sixty paragraphs in at least twenty documents of two tenants, each of a useful length."""
    documents = samples.documents()
    paragraphs = [text for document in documents for text in document.paragraphs]
    assert len(documents) >= 20
    assert len(paragraphs) >= 60
    assert len(set(paragraphs)) == len(paragraphs)
    assert {document.tenant for document in documents} == {"fennlock", "harbourside"}
    assert all(30 <= len(text.split()) <= 120 for text in paragraphs)


def test_the_requests_fit_the_documents() -> None:
    """25 requests of both types and tenants; what an answer must contain stands in the document it must cite."""
    requests, documents = samples.requests(), {document.id: document for document in samples.documents()}
    assert len(requests) == len({request.id for request in requests}) == 25
    assert {request.type for request in requests} == {"quick_answer", "detailed_analysis"}
    assert {request.tenant for request in requests} == {"fennlock", "harbourside"}
    assert len(documents) == len(samples.documents())
    for request in requests:
        assert documents[request.expect.document].tenant == request.tenant
        assert is_right(request, documents[request.expect.document].body)
        assert not is_right(request, request.input)


@pytest.mark.parametrize(
    "answer, right",
    [
        ("Within Seven\n days of it, with TWO PHOTOGRAPHS. [1]", True),
        ("Within twenty-seven daystwo photographs", False),
        ("Within seven days.", False),
        ("", False),
    ],
)
def test_an_answer_is_right_when_it_has_all_words(answer: str, right: bool) -> None:
    """Case and spacing do not matter; whole words do, and every one is needed."""
    expect = {"contains": ["seven days", "two photographs"], "document": "d"}
    request = SampleRequest.model_validate({"id": "r", "tenant": "t", "type": "x", "input": "?", "expect": expect})
    assert is_right(request, answer) is right


def test_numbers_are_whole() -> None:
    """The answer "17 days" is not "7 days"."""
    expect = {"contains": ["7 days"], "document": "d"}
    request = SampleRequest.model_validate({"id": "r", "tenant": "t", "type": "x", "input": "?", "expect": expect})
    assert not is_right(request, "After 17 days.")
    assert is_right(request, "After 7 days.")


def test_the_samples_load_from_a_zip(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The data comes through importlib.resources, so that it is found wherever the package lies."""
    folder = Path(samples.__file__).parent
    with zipfile.ZipFile(tmp_path / "packed.zip", "w") as packed:
        for name in ("__init__.py", "documents.jsonl", "requests.jsonl"):
            packed.write(folder / name, f"packed_samples/{name}")
    monkeypatch.syspath_prepend(str(tmp_path / "packed.zip"))
    loaded = __import__("packed_samples")
    assert [SampleDocument(**vars(document)) for document in loaded.documents()] == samples.documents()
