"""What a webhook delivery is worth by itself: verified as a receiver does who follows the specification.

Source of the rules: the Standard Webhooks specification. `v1` is checked by its own library, `v1a` here.
"""

from __future__ import annotations

import base64
import binascii
import json
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from standardwebhooks.webhooks import EmptyWebhookSecretError, Webhook, WebhookVerificationError

from pipeline.core.errors import ConfigurationError

TOLERANCE_SECONDS = 300.0
"""How far the timestamp may be off, as in the library."""

_HEADERS = ("webhook-id", "webhook-timestamp", "webhook-signature")


@dataclass(frozen=True, slots=True)
class Verdict:
    """The status that a delivery deserves, its JSON body, and what is wrong with it."""

    status: int
    body: Any = None
    problem: str = ""


@dataclass(frozen=True, slots=True)
class Verifier:
    """Verifies deliveries by the secrets of an endpoint, any of them: `whsec_`, `whsk_` or only its `whpk_`."""

    shared: tuple[Webhook, ...] = field(repr=False)
    public: tuple[Ed25519PublicKey, ...]

    @classmethod
    def of(cls, secrets: str) -> Verifier:
        """Read secrets, separated by blanks. Raises ConfigurationError, without repeating them."""
        every = secrets.split()
        try:
            public = tuple(_public(one) for one in every if one.startswith(("whsk_", "whpk_")))
            shared = tuple(Webhook(one) for one in every if not one.startswith(("whsk_", "whpk_")))
        except (ValueError, RuntimeError, EmptyWebhookSecretError):
            shared = public = ()
        if not shared and not public:
            raise ConfigurationError("The webhook secret must be `whsec_` followed by the base64 of a key.")
        return cls(shared, public)

    def judge(self, raw: bytes, headers: Mapping[str, str]) -> Verdict:
        """Verify a delivery (header names in lower case) against the secrets and the system's clock."""
        missing = [name for name in _HEADERS if not headers.get(name)]
        if missing:
            return Verdict(400, _json(raw), f"missing {', '.join(missing)}")
        try:
            self._verify(raw, headers)
        except (WebhookVerificationError, ValueError) as error:
            # ValueError: the library does not catch what a malformed signature or a body that is no text raises in it.
            return Verdict(401, _json(raw), str(error))
        body = _json(raw)
        return Verdict(204, body) if isinstance(body, dict) else Verdict(400, body, "the body is not a JSON object")

    def _verify(self, raw: bytes, headers: Mapping[str, str]) -> None:
        if any(_verified(key, raw, headers) for key in self.public):
            return
        # The library fails on signatures of versions that it does not know, other than by passing over them.
        for number, webhook in enumerate(self.shared, 1):
            try:
                webhook.verify(raw, dict(headers), json_parse=False)
            except WebhookVerificationError:
                if number == len(self.shared):
                    raise
            else:
                return
        if not self.shared:
            raise WebhookVerificationError("No matching signature found")


def _verified(key: Ed25519PublicKey, raw: bytes, headers: Mapping[str, str]) -> bool:
    timestamp = headers["webhook-timestamp"]
    if not timestamp.isdecimal() or abs(time.time() - int(timestamp)) > TOLERANCE_SECONDS:
        return False
    content = f"{headers['webhook-id']}.{timestamp}.".encode() + raw
    signatures = [one.removeprefix("v1a,") for one in headers["webhook-signature"].split() if one.startswith("v1a,")]
    return any(_signed(key, signature, content) for signature in signatures)


def _signed(key: Ed25519PublicKey, signature: str, content: bytes) -> bool:
    try:
        key.verify(base64.b64decode(signature, validate=True), content)
    except (InvalidSignature, binascii.Error):
        return False
    return True


def _public(secret: str) -> Ed25519PublicKey:
    prefix, _, encoded = secret.partition("_")
    raw = base64.b64decode(encoded, validate=True)
    if prefix == "whpk":
        return Ed25519PublicKey.from_public_bytes(raw)
    return Ed25519PrivateKey.from_private_bytes(raw[:32]).public_key()


def _json(raw: bytes) -> Any:
    try:
        return json.loads(raw)
    except (ValueError, RecursionError):
        return None
