"""Tests of how webhooks are configured: what the catalog and the environment say, and what cannot work."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from pipeline.clients.webhook import Address, addresses, check_endpoint, open_webhooks
from pipeline.clients.webhook_gate import Limits
from pipeline.clients.webhook_signing import generate_secret
from pipeline.core.catalog import Endpoint, Tenant
from pipeline.core.errors import ConfigurationError

SECRET = generate_secret()


@pytest.mark.parametrize(
    "url,problem",
    [
        ("http://example.com/hook", "must be https"),
        ("ftp://example.com/hook", "is no https address"),
        ("example.com/hook", "is no https address"),
        ("", "is no https address"),
        ("https://", "is no https address"),
        ("https://user:word@example.com/", "must not hold a user or password"),
        ("https://example.com:99999999/", "is no https address"),
        ("http://127.0.0.1:8080/", "PIPELINE_ALLOW_LOOPBACK_WEBHOOKS"),
        ("https://localhost/", "PIPELINE_ALLOW_LOOPBACK_WEBHOOKS"),
        ("http://[::1]/", "PIPELINE_ALLOW_LOOPBACK_WEBHOOKS"),
        ("https://10.0.0.1/", "must not be a private address"),
    ],
)
async def test_only_https_leaves_the_machine(url: str, problem: str) -> None:
    """An address that may not be used stops the start, with the endpoint's name and its variable."""
    address = Address(url, SECRET, "CRM_URL")
    with pytest.raises(ConfigurationError, match=problem) as wrong:
        async with open_webhooks({"crm": address}, allow_loopback=False, clock=time.time):
            pass
    assert "'crm'" in str(wrong.value)
    assert "CRM_URL" in str(wrong.value)
    assert "word" not in str(wrong.value).replace("password", "")
    assert (await check_endpoint("crm", address, allow_loopback=False)).problem == str(wrong.value)


@pytest.mark.parametrize(
    "secret",
    ["", "  ", "plain", "whsec_", "whsec_!!!!", "whsec_c2hvcnQ=", SECRET[6:], "whsk_c2hvcnQ="],
    ids=["empty", "blank", "plain", "no key", "no base64", "short", "no prefix", "short private"],
)
async def test_a_secret_that_cannot_sign_stops_the_start(secret: str) -> None:
    """The endpoint and the variable are named, the secret is not."""
    endpoints = {"crm": Address("https://example.com/", secret, "CRM_URL", "CRM_SECRET")}
    with pytest.raises(ConfigurationError, match="'crm': CRM_SECRET") as wrong:
        async with open_webhooks(endpoints, allow_loopback=False, clock=time.time):
            pass
    assert not secret.strip() or secret == "whsec_" or secret not in str(wrong.value)


def test_addresses_come_from_the_catalog_and_the_environment() -> None:
    """A URL stands in the catalog or in a variable; the secret always in a variable."""
    endpoints = {
        "crm": Endpoint(url="https://example.com/crm", secret_env="CRM_SECRET", concurrency=3, per_second=0.5),
        "default": Endpoint(url_env="WEBHOOK_URL", secret_env="WEBHOOK_SECRET", timeout_seconds=7),
    }
    values = {"CRM_SECRET": "s1", "WEBHOOK_URL": "https://example.com/all", "WEBHOOK_SECRET": "s2"}
    tenants = {
        "acme": Tenant(webhook_hosts=("hooks.acme.example", "*.acme.example"), webhook_endpoint="crm"),
        "other": Tenant(),
    }
    files = {"CRM_SECRET": Path("crm.secret")}
    found = addresses(endpoints, values.get, file_of=files.get, tenants=tenants)
    assert found == {
        "crm": Address(
            "https://example.com/crm",
            "s1",
            "endpoints.crm.url",
            "CRM_SECRET",
            limits=Limits(3, 0.5),
            hosts=frozenset({"hooks.acme.example", "*.acme.example"}),
            secret_file=Path("crm.secret"),
        ),
        "default": Address("https://example.com/all", "s2", "WEBHOOK_URL", "WEBHOOK_SECRET", 7),
    }
    assert "s1" not in repr(found)


@pytest.mark.parametrize("missing", ["WEBHOOK_URL", "WEBHOOK_SECRET"])
def test_a_variable_that_is_not_set_is_named(missing: str) -> None:
    """The sentence says which endpoint needs which variable."""
    values = {"WEBHOOK_URL": "https://example.com/all", "WEBHOOK_SECRET": "s2"}
    del values[missing]
    with pytest.raises(ConfigurationError, match=f"'default' needs {missing}"):
        addresses({"default": Endpoint(url_env="WEBHOOK_URL", secret_env="WEBHOOK_SECRET")}, values.get)
