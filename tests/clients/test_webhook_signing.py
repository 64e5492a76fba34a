"""Tests of pipeline/clients/webhook_signing.py: verified by the library, and by a reading of the specification."""

from __future__ import annotations

import base64
import hashlib
import hmac
import time
from collections.abc import Mapping

import pytest
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from hypothesis import given, settings
from hypothesis import strategies as st
from standardwebhooks.webhooks import Webhook

from pipeline.clients.webhook_signing import BadSecret, Kind, generate_secret, keys, public_key, signed_headers
from pipeline.core.ports import WebhookMessage
from tests.examples import at_most

SHARED, OTHER = generate_secret(), generate_secret()
PRIVATE = generate_secret("v1a")
BODY = '{"type": "job.completed", "data": "ä"}'.encode()
MESSAGE = WebhookMessage("crm", "11111111-2222-5333-8444-555555555555", BODY)
NOW = 1_800_000_000.75

SEED = bytes.fromhex("9d61b19deffd5a60ba844af492ec2cc44449c5697b326919703bac031cae7f60")
PUBLIC = bytes.fromhex("d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a")
"""RFC 8032, section 7.1, test 1."""


def base64_of(prefix: str, raw: bytes) -> str:
    return prefix + base64.b64encode(raw).decode()


def verified(headers: Mapping[str, str], body: bytes, secret: str) -> bool:
    """Verify as the specification tells a receiver to, by the secret or public key that the receiver was given."""
    content = b".".join([headers["webhook-id"].encode(), headers["webhook-timestamp"].encode(), body])
    prefix, _, encoded = secret.partition("_")
    key = base64.b64decode(encoded)
    for version, _, signature in (one.partition(",") for one in headers["webhook-signature"].split(" ")):
        raw = base64.b64decode(signature)
        if version == "v1" and prefix == "whsec" and hmac.new(key, content, hashlib.sha256).digest() == raw:
            return True
        if version == "v1a" and prefix == "whpk":
            try:
                Ed25519PublicKey.from_public_bytes(key).verify(raw, content)
            except InvalidSignature:
                continue
            return True
    return False


def verifier(secret: str) -> str:
    return public_key(secret) or secret


@pytest.mark.parametrize("secret", [SHARED, PRIVATE], ids=["v1", "v1a"])
def test_a_receiver_verifies(secret: str) -> None:
    """By the specification, with the shared secret or the public key; another body, id, time or key does not pass."""
    headers = signed_headers(MESSAGE, keys(secret), NOW)
    known = verifier(secret)
    assert verified(headers, BODY, known)
    assert not verified(headers, BODY + b" ", known)
    assert not verified({**headers, "webhook-id": "another"}, BODY, known)
    assert not verified({**headers, "webhook-timestamp": "1800000001"}, BODY, known)
    assert not verified(headers, BODY, verifier(OTHER if secret == SHARED else generate_secret("v1a")))


@pytest.mark.parametrize(
    "text", [SHARED, f"{PRIVATE} {SHARED}", f"{OTHER} {SHARED} {PRIVATE}"], ids=["alone", "second", "among others"]
)
def test_the_library_verifies(text: str) -> None:
    """The library of Standard Webhooks accepts `v1`, alone and among others."""
    headers = signed_headers(MESSAGE, keys(text), time.time())
    assert Webhook(SHARED).verify(BODY, headers) == {"type": "job.completed", "data": "ä"}


def test_all_secrets_sign_in_their_order() -> None:
    """While keys are changed, a receiver with any of them accepts; kinds can be mixed."""
    headers = signed_headers(MESSAGE, keys(f"{SHARED}  {PRIVATE}\n{OTHER}"), NOW)
    assert [one.partition(",")[0] for one in headers["webhook-signature"].split(" ")] == ["v1", "v1a", "v1"]
    for secret in (SHARED, PRIVATE, OTHER):
        assert verified(headers, BODY, verifier(secret))


def test_the_headers_are_those_of_the_specification_in_its_order() -> None:
    """The timestamp is that of the attempt, in whole seconds."""
    headers = signed_headers(MESSAGE, keys(SHARED), NOW)
    assert [name for name in headers if name.startswith("webhook-")] == [
        "webhook-id",
        "webhook-timestamp",
        "webhook-signature",
    ]
    assert headers["webhook-id"] == MESSAGE.id
    assert headers["webhook-timestamp"] == "1800000000"
    assert headers["content-type"] == "application/json"


@settings(max_examples=at_most(20))
@given(st.text(alphabet=st.characters(codec="utf-8"), max_size=80), st.integers(0, 4_000_000_000))
def test_any_text_can_be_signed(body: str, at: int) -> None:
    """Whatever the body and the time, both kinds verify."""
    headers = signed_headers(WebhookMessage("crm", "id", body.encode()), keys(f"{SHARED} {PRIVATE}"), at)
    assert verified(headers, body.encode(), SHARED)
    assert verified(headers, body.encode(), verifier(PRIVATE))


@pytest.mark.parametrize("raw", [SEED, SEED + PUBLIC], ids=["seed", "seed and public key"])
def test_a_private_key_is_a_seed_with_or_without_its_public_key(raw: bytes) -> None:
    """Both forms are in use; RFC 8032's first key has its public key."""
    assert public_key(base64_of("whsk_", raw)) == base64_of("whpk_", PUBLIC)


@pytest.mark.parametrize("kind,prefix", [("v1", "whsec_"), ("v1a", "whsk_")])
def test_new_secrets_sign_and_differ(kind: Kind, prefix: str) -> None:
    """Two new secrets are two, and each can be used as it is."""
    one, other = generate_secret(kind), generate_secret(kind)
    assert one != other
    assert one.startswith(prefix)
    assert [key.kind for key in keys(f"{one} {other}")] == [kind, kind]
    assert (public_key(one) is None) == (kind == "v1")


@pytest.mark.parametrize(
    "secret,problem",
    [
        ("", "is empty"),
        (" \n", "is empty"),
        ("plain", "must be whsec_ or whsk_"),
        (SHARED[6:], "must be whsec_ or whsk_"),
        ("whsec_", "at least 24 bytes"),
        ("whsec_c2hvcnQ=", "at least 24 bytes"),
        ("whsec_!!!!", "no base64"),
        ("whsk_", "32 bytes"),
        (base64_of("whsk_", SEED[:-1]), "32 bytes"),
        (base64_of("whsk_", SEED + SEED), "not the public key"),
        (base64_of("whpk_", PUBLIC), "must be whsec_ or whsk_"),
        (f"{SHARED} plain", "must be whsec_ or whsk_"),
    ],
    ids=range(12),
)
def test_a_secret_that_cannot_sign_is_refused(secret: str, problem: str) -> None:
    """The sentence says what it should be, and never what it is."""
    with pytest.raises(BadSecret, match=problem) as refused:
        keys(secret)
    for part in secret.split():
        assert part in {"whsec_", "whsk_"} or part not in str(refused.value)


def test_a_key_does_not_show_itself() -> None:
    """What is printed by accident holds no secret."""
    assert all(SHARED[6:] not in repr(key) and PRIVATE[5:] not in repr(key) for key in keys(f"{SHARED} {PRIVATE}"))
