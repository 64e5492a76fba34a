"""What a person hears of a registry that does not answer as it should."""

from __future__ import annotations

import pytest

from pipeline.core.errors import ConfigurationError
from pipeline.wire.registry import RegistryConfig
from pipeline.wire.registry_subjects import open_subjects, own_schemas
from tests.schemas.examples import SCHEMAS
from tests.wire.fake_registry import FakeRegistry, Mood

pytestmark = pytest.mark.local

OWN = own_schemas(SCHEMAS, "p")
TROUBLES: dict[Mood, str] = {
    "down": "cannot be reached or understood (RemoteProtocolError): start it, or mend SCHEMA_REGISTRY_URL, and run "
    "this again",
    "broken": "refuses to answer (HTTP 500, code 50001): its own log says why",
    "refusing": "refuses to answer (HTTP 401, code 401): check the user and password in SCHEMA_REGISTRY_URL, and what "
    "they may do",
    "elsewhere": "refuses to answer (HTTP 404, code -1): SCHEMA_REGISTRY_URL must name its Confluent-compatible API "
    "(Apicurio's ends with /apis/ccompat/v7)",
}


@pytest.mark.parametrize("mood", TROUBLES)
async def test_each_trouble_has_its_cure_and_shows_no_password(mood: Mood) -> None:
    """Looking, setting a level and registering all say where, what and what to do."""
    async with FakeRegistry().running() as fake:
        fake.mood = mood
        url = fake.url.replace("://", "://me:hunter2@")
        async with open_subjects(RegistryConfig(url, "p", timeout=30), lambda: 0.0) as subjects:
            for question in (
                subjects.level("p.requests-value"),
                subjects.set_level("p.requests-value", "FULL"),
                subjects.versions("p.requests-value"),
                subjects.find(OWN[0]),
                subjects.register(OWN[0]),
            ):
                with pytest.raises(ConfigurationError) as caught:
                    await question
                # A connection that ends may be noticed in either way.
                said = str(caught.value).replace("ReadError", "RemoteProtocolError")
                assert said == f"the schema registry at {fake.url} {TROUBLES[mood]}"


def test_every_version_has_the_subject_of_its_noun() -> None:
    """`<prefix>.<noun>-value`, by noun and oldest first, with the name of its file."""
    assert [(one.subject, one.number, one.file) for one in OWN if one.subject == "p.documents-value"] == [
        ("p.documents-value", 1, "documents/v1.avsc"),
        ("p.documents-value", 2, "documents/v2.avsc"),
    ]
    assert len(OWN) == sum(len(SCHEMAS.versions(noun)) for noun in SCHEMAS.nouns)
