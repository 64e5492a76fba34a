"""The catalog: what kinds of request there are, which model answers them, and where answers may go.

It is the only source of URLs, templates and models. What a request may choose from it, it chooses by name.
"""

from __future__ import annotations

import hashlib
import json
from typing import Annotated, Literal

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    JsonValue,
    PositiveInt,
    ValidationError,
    field_validator,
    model_validator,
)

from pipeline.core.errors import ConfigurationError
from pipeline.core.job import Lane

MAX_DEADLINE_SECONDS = 31_536_000
"""A year: nothing waits longer."""


class _Entry(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class Model(_Entry):
    """A model's prices, in US dollars per million tokens, and the size of its context window in tokens."""

    input_usd_per_million: float = Field(ge=0, allow_inf_nan=False)
    output_usd_per_million: float = Field(ge=0, allow_inf_nan=False)
    context_tokens: PositiveInt = 128_000

    def cost(self, prompt_tokens: int, completion_tokens: int) -> float:
        """Price one call, in US dollars."""
        return (
            prompt_tokens * self.input_usd_per_million + completion_tokens * self.output_usd_per_million
        ) / 1_000_000


class Template(_Entry):
    """A prompt in two parts, Jinja2: `input` and `passages` are the variables; both are data and come escaped."""

    system: str
    user: str


class Endpoint(_Entry):
    """A webhook's address (`url`, or the variable that holds it), the variable of its secrets, and what it asks for.

    It hears of `events`, in the form of `body_version`. No more than `concurrency` messages are on their way to it at
    once, no more than `per_second` are begun in a second, and each try ends after `timeout_seconds`. `ordered`: of one
    key the next message goes out when the one before has arrived. It is disabled after failing for so many days.
    """

    url: str | None = Field(default=None, min_length=1)
    url_env: str | None = Field(default=None, min_length=1)
    secret_env: str = Field(min_length=1)
    events: tuple[Literal["job.completed", "job.failed"], ...] = ("job.completed", "job.failed")
    body_version: Literal[1, 2] = 1
    ordered: bool = False
    concurrency: PositiveInt = 16
    per_second: float | None = Field(default=None, gt=0)
    timeout_seconds: float = Field(default=20, gt=0, le=60)
    disable_after_days: float = Field(default=5, gt=0, le=365)

    @model_validator(mode="after")
    def _one_address(self) -> Endpoint:
        if (self.url is None) == (self.url_env is None):
            raise ValueError("an endpoint has either url or url_env")
        return self


class Retrieval(_Entry):
    """How many passages a prompt may have, and how many tokens they may take in all. `passages: 0` retrieves none.

    Passages that score below `score_threshold` are left out; of one document no more than `per_document` are taken;
    each is widened by its `neighbours` on both sides, within the tokens. A request may filter by the names in
    `filters`, by any where there is no such list.
    """

    passages: int = Field(default=4, ge=0, le=50)
    tokens: PositiveInt = 1_500
    score_threshold: float | None = None
    per_document: int | None = Field(default=None, ge=1)
    neighbours: int = Field(default=0, ge=0, le=5)
    filters: tuple[Annotated[str, Field(pattern=r"^[A-Za-z_][A-Za-z0-9_]*$")], ...] | None = None


class EventType(_Entry):
    """One kind of request. `endpoints` are the names a request may choose besides `endpoint`."""

    model: str
    template: str
    max_input_tokens: PositiveInt = 4_000
    max_output_tokens: PositiveInt
    temperature: float = Field(default=0.0, ge=0, le=2)
    deadline_seconds: float = Field(default=600, gt=0, le=MAX_DEADLINE_SECONDS)
    lane: Lane = "standard"
    lanes: tuple[Lane, ...] = ("interactive", "standard", "batch")
    endpoint: str
    endpoints: tuple[str, ...] = ()
    retrieval: Retrieval = Retrieval()
    output_schema: dict[str, JsonValue] | None = None
    require_citations: bool = False
    on_empty: Literal["fail", "retry"] = "retry"
    on_refusal: Literal["fail", "deliver"] = "fail"
    on_truncated: Literal["fail", "deliver"] = "deliver"
    on_dead_letter: Literal["notify", "silent"] = "notify"
    dead_letter_grace_seconds: float = Field(default=0, ge=0, le=MAX_DEADLINE_SECONDS)

    @model_validator(mode="after")
    def _lane_is_open(self) -> EventType:
        if self.lane not in self.lanes:
            raise ValueError(f"its lane {self.lane!r} is not among its lanes ({', '.join(self.lanes)})")
        return self


class Tenant(_Entry):
    """What one tenant may do: its requests may bring an https address on one of `webhook_hosts` as their endpoint.

    `*.example.com` stands for all hosts below example.com. The secret and all else are those of `webhook_endpoint`.
    """

    webhook_hosts: tuple[Annotated[str, Field(pattern=r"^(\*\.)?[a-z0-9-]+(\.[a-z0-9-]+)+$")], ...] = ()
    webhook_endpoint: str | None = None


class Catalog(_Entry):
    """A whole checked catalog; every name used in it exists in it."""

    default_endpoint: str
    tenants: dict[str, Tenant] | None = None
    models: dict[str, Model]
    templates: dict[str, Template]
    endpoints: dict[str, Endpoint]
    types: dict[str, EventType]
    version: str = ""

    @field_validator("tenants", mode="before")
    @classmethod
    def _mere_names(cls, given: object) -> object:
        """A list names tenants of which there is no more to say."""
        return {str(name): {} for name in given} if isinstance(given, list | tuple) else given

    @model_validator(mode="after")
    def _names_exist(self) -> Catalog:
        wrong = [f"default_endpoint: {self.default_endpoint}"] if self.default_endpoint not in self.endpoints else []
        for name, kind in self.types.items():
            wrong += [f"types.{name}.model: {kind.model}"] * (kind.model not in self.models)
            wrong += [f"types.{name}.template: {kind.template}"] * (kind.template not in self.templates)
            ends = (kind.endpoint, *kind.endpoints)
            wrong += [f"types.{name}.endpoint: {value}" for value in ends if value not in self.endpoints]
        for name, tenant in (self.tenants or {}).items():
            usual = tenant.webhook_endpoint
            if usual not in self.endpoints and (usual is not None or tenant.webhook_hosts):
                wrong.append(f"tenants.{name}.webhook_endpoint: {usual}")
        if wrong:
            raise ValueError("names that the catalog does not define: " + ", ".join(wrong))
        return self

    @model_validator(mode="after")
    def _answers_fit(self) -> Catalog:
        for name, kind in self.types.items():
            window = self.models[kind.model].context_tokens
            if kind.max_output_tokens >= window:
                raise ValueError(
                    f"types.{name}.max_output_tokens: {kind.max_output_tokens} leave no room for a prompt in the "
                    f"{window} tokens of the model {kind.model}"
                )
        return self


def parse_catalog(data: object, origin: str) -> Catalog:
    """Check a catalog read from `origin` and stamp it with a version made of its content.

    Raises ConfigurationError with one sentence that names the file and each wrong entry.
    """
    if not isinstance(data, dict):
        raise ConfigurationError(f"catalog {origin}: expected a mapping with models, templates, endpoints and types")
    try:
        catalog = Catalog.model_validate(data)
    except ValidationError as error:
        wrong = "; ".join(
            f"{'.'.join(map(str, problem['loc'])) or 'catalog'}: {problem['msg'].removeprefix('Value error, ')}"
            for problem in error.errors()
        )
        raise ConfigurationError(f"catalog {origin}: {wrong}") from None
    digest = hashlib.sha256(json.dumps(catalog.model_dump(), sort_keys=True, default=str).encode()).hexdigest()[:12]
    return catalog.model_copy(update={"version": catalog.version or digest})
