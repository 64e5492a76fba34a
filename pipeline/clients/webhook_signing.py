"""Signatures of Standard Webhooks, and the secrets that make them.

`v1` is HMAC-SHA256, with a secret `whsec_` that both ends know. `v1a` is Ed25519: `whsk_` signs and stays here, the
receiver verifies with `whpk_`. After the prefix comes base64: of 24 bytes or more for `whsec_`; for `whsk_` of the 32
bytes of the seed, or of these and the 32 of the public key. Both sign `{id}.{timestamp}.{body}`.

Source: the Standard Webhooks specification, sections on signatures; RFC 8032 for Ed25519.
"""

from __future__ import annotations

import binascii
import secrets
from base64 import b64decode, b64encode
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Literal, Protocol

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from standardwebhooks.webhooks import Webhook

from pipeline.core.ports import WebhookMessage

Kind = Literal["v1", "v1a"]

LEAST_SECRET = 24
"""The least bytes of a `whsec_` secret (the specification: 24 to 64)."""
NEW_SECRET = 32
"""The bytes of a new secret, of either kind."""

SYMMETRIC, PRIVATE, PUBLIC = "whsec_", "whsk_", "whpk_"


class BadSecret(ValueError):
    """A secret that cannot sign. The message is the end of a sentence that names it, and never repeats it."""


class Key(Protocol):
    """What one secret signs with."""

    @property
    def kind(self) -> Kind:
        """The version of its signatures."""
        ...

    @property
    def public(self) -> str | None:
        """What the receiver verifies with, where that is no secret."""
        ...

    def sign(self, message: str, at: int, body: bytes) -> str:
        """Sign a body under its message's id and a time in seconds since 1970: `v1,...` or `v1a,...`."""
        ...


@dataclass(frozen=True, slots=True)
class SharedKey:
    """Signs by HMAC-SHA256."""

    webhook: Webhook = field(repr=False)
    kind: Kind = "v1"
    public: None = None

    def sign(self, message: str, at: int, body: bytes) -> str:
        """Sign; see the protocol. The library wants an aware time, and text."""
        return self.webhook.sign(message, datetime.fromtimestamp(at, UTC), body.decode())


@dataclass(frozen=True, slots=True)
class PrivateKey:
    """Signs by Ed25519."""

    private: Ed25519PrivateKey = field(repr=False)
    kind: Kind = "v1a"

    @property
    def public(self) -> str:
        """The `whpk_` key that the receiver verifies with."""
        return PUBLIC + b64encode(_public(self.private)).decode()

    def sign(self, message: str, at: int, body: bytes) -> str:
        """Sign; see the protocol."""
        return "v1a," + b64encode(self.private.sign(f"{message}.{at}.".encode() + body)).decode()


def keys(text: str) -> tuple[Key, ...]:
    """Read secrets, of either kind, separated by blanks; all sign, in this order. Raises BadSecret."""
    found = tuple(map(_key, text.split()))
    if not found:
        raise BadSecret("is empty")
    return found


def signed_headers(message: WebhookMessage, signers: Sequence[Key], now: float) -> dict[str, str]:
    """Return the headers of an attempt at `now`. Raises UnicodeDecodeError for a body that is no text."""
    at = int(now)
    return {
        "content-type": "application/json",
        "user-agent": "llm-event-pipeline",
        "webhook-id": message.id,
        "webhook-timestamp": str(at),
        "webhook-signature": " ".join([key.sign(message.id, at, message.body) for key in signers]),
    }


def generate_secret(kind: Kind = "v1") -> str:
    """Make a new secret for an endpoint: `whsec_` for v1, `whsk_` for v1a."""
    prefix = SYMMETRIC if kind == "v1" else PRIVATE
    return prefix + b64encode(secrets.token_bytes(NEW_SECRET)).decode()


def public_key(secret: str) -> str | None:
    """Return what the receiver of a new secret is given to verify with: `whpk_`; None for a shared one.

    Raises BadSecret.
    """
    return _key(secret).public


def _key(secret: str) -> Key:
    if secret.startswith(SYMMETRIC):
        if len(_decoded(secret.removeprefix(SYMMETRIC))) < LEAST_SECRET:
            raise BadSecret(f"must be {SYMMETRIC} and the base64 of at least {LEAST_SECRET} bytes")
        return SharedKey(Webhook(secret))
    if secret.startswith(PRIVATE):
        return PrivateKey(_private(_decoded(secret.removeprefix(PRIVATE))))
    raise BadSecret(f"must be {SYMMETRIC} or {PRIVATE} and base64; several are separated by blanks")


def _private(raw: bytes) -> Ed25519PrivateKey:
    if len(raw) not in {32, 64}:
        raise BadSecret(f"must be {PRIVATE} and the base64 of 32 bytes, or of 64 with the public key behind them")
    key = Ed25519PrivateKey.from_private_bytes(raw[:32])
    if raw[32:] not in {b"", _public(key)}:
        raise BadSecret(f"is a {PRIVATE} key whose second half is not the public key of the first")
    return key


def _public(key: Ed25519PrivateKey) -> bytes:
    return key.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw)


def _decoded(text: str) -> bytes:
    try:
        return b64decode(text + "=" * (-len(text) % 4), validate=True)
    except (binascii.Error, ValueError):
        raise BadSecret("is no base64 behind its prefix") from None
