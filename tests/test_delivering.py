"""Tests of pipeline/delivering.py: trying an endpoint, against the receiver on this machine."""

from __future__ import annotations

import json

import pytest

from pipeline import wiring
from pipeline.core.errors import ConfigurationError
from pipeline.delivering import Trial, try_endpoint
from pipeline.devkit.receiver import HookFailure, Receiver, ReceiverConfig, new_secret, receiver
from pipeline.settings import Environment, load

SECRET = new_secret()


async def tried(hooks: Receiver, **variables: str) -> Trial:
    """Try the endpoint of the catalog in the package."""
    given = {"WEBHOOK_URL": hooks.url, "WEBHOOK_SECRET": SECRET, "PIPELINE_ALLOW_LOOPBACK_WEBHOOKS": "1"}
    return await try_endpoint(load(Environment({**given, **variables}), wiring.STAGES), "default")


async def test_a_trial_is_a_signed_message() -> None:
    """The receiver verifies it as any other; nothing in it is about a job."""
    async with receiver(ReceiverConfig(SECRET)) as hooks:
        trial = await tried(hooks)
        (got,) = hooks.accepted
        assert (trial.problem, trial.status, trial.webhook_id) == ("", 204, got.webhook_id)
        assert (got.body["type"], got.body["data"]) == ("endpoint.test", {"endpoint": "default"})
        assert "127.0.0.1" in trial.addresses
        assert SECRET not in json.dumps(trial.plain)


async def test_a_refusal_is_told_with_its_status() -> None:
    """And a wrong secret is what the receiver says of it."""
    async with receiver(ReceiverConfig(SECRET)) as hooks:
        hooks.fail(HookFailure(status=503))
        refused = await tried(hooks)
        assert (refused.status, "503" in refused.problem) == (503, True)
        assert (await tried(hooks, WEBHOOK_SECRET=new_secret())).status == 401


async def test_what_may_not_be_reached_is_not_posted_to() -> None:
    """The guard against our own network is that of the workers."""
    async with receiver(ReceiverConfig(SECRET)) as hooks:
        trial = await tried(hooks, PIPELINE_ALLOW_LOOPBACK_WEBHOOKS="0")
        assert "PIPELINE_ALLOW_LOOPBACK_WEBHOOKS" in trial.problem
        assert (trial.status, hooks.received) == (None, [])


async def test_an_unknown_endpoint_is_an_error() -> None:
    """It lists those there are."""
    with pytest.raises(ConfigurationError, match="no endpoint is called 'crm': there are default"):
        await try_endpoint(load(Environment({}), wiring.STAGES), "crm")
