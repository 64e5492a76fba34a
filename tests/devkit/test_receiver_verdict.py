"""Tests of pipeline/devkit/receiver_verdict.py with Ed25519; test_receiver.py has what is signed by a shared secret."""

from __future__ import annotations

import base64
import time
from datetime import UTC, datetime

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from standardwebhooks.webhooks import Webhook

from pipeline.core.errors import ConfigurationError
from pipeline.devkit.receiver import new_secret
from pipeline.devkit.receiver_verdict import Verifier

SEED = bytes(range(32))
KEY = Ed25519PrivateKey.from_private_bytes(SEED)
PRIVATE = "whsk_" + base64.b64encode(SEED).decode()
PUBLIC = "whpk_" + base64.b64encode(KEY.public_key().public_bytes_raw()).decode()
BODY = b'{"job": 7}'


def headers(*signatures: str, at: float = 0.0) -> dict[str, str]:
    """Make the headers of a delivery signed by `KEY`, `at` seconds from now, with other signatures before it."""
    timestamp = str(int(time.time() + at))
    own = "v1a," + base64.b64encode(KEY.sign(b"evt_1." + timestamp.encode() + b"." + BODY)).decode()
    return {
        "webhook-id": "evt_1",
        "webhook-timestamp": timestamp,
        "webhook-signature": " ".join([*signatures, own]),
    }


@pytest.mark.parametrize("secrets", [PRIVATE, PUBLIC, f"{new_secret()} {PUBLIC}"], ids=["private", "public", "second"])
def test_a_delivery_is_verified_by_any_secret(secrets: str) -> None:
    """By the private key, the public one, and where there are others too."""
    assert Verifier.of(secrets).judge(BODY, headers()).status == 204
    assert Verifier.of(secrets).judge(BODY, headers("v1,AAAA", "v1a,%%%", "v1a,AAAA")).status == 204


@pytest.mark.parametrize("secrets", [PUBLIC, f"{new_secret()} {new_secret()}"], ids=["public", "others"])
def test_what_is_not_signed_by_any_is_refused(secrets: str) -> None:
    """Another body, an old timestamp, one that is no number, or no secret that knows the signature."""
    verifier = Verifier.of(secrets)
    assert verifier.judge(BODY + b" ", headers()).status == 401
    assert verifier.judge(BODY, headers(at=-400)).status == 401
    assert verifier.judge(BODY, {**headers(), "webhook-timestamp": "today"}).status == 401


def test_a_shared_secret_is_found_among_several() -> None:
    """While secrets are changed, a receiver knows both."""
    old, new = new_secret(), new_secret()
    given = headers()
    signed = Webhook(new).sign("evt_1", datetime.fromtimestamp(int(given["webhook-timestamp"]), UTC), BODY.decode())
    assert Verifier.of(f"{old} {new}").judge(BODY, {**given, "webhook-signature": signed}).status == 204


@pytest.mark.parametrize("secrets", ["", "whsk_AAAA", "whpk_%"])
def test_a_secret_that_verifies_nothing_is_refused(secrets: str) -> None:
    """In one sentence, that does not repeat it."""
    with pytest.raises(ConfigurationError, match="webhook secret") as refused:
        Verifier.of(secrets)
    assert not secrets or secrets not in str(refused.value)
