"""Settings: what is configured, where each value comes from, and which values are secret.

Own variables are `PIPELINE_*`, an unknown one is an error. Read by `wiring` and `cli` alone; everyone else is handed
plain values. A variable wins over the file that `pipeline up` writes, which wins over the default; any variable can
be given as `<NAME>_FILE`, the path of a file that holds the value.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from pipeline.core import names
from pipeline.core.errors import ConfigurationError

OWN = "PIPELINE_"
MASK = "********"

FOREIGN: Mapping[str, str] = {
    "KAFKA_BOOTSTRAP_SERVERS": "host:port of the Kafka brokers; any other librdkafka key as `KAFKA_<NAME>`",
    "SCHEMA_REGISTRY_URL": "a Confluent-compatible schema registry; without it schemas are files in the package",
    "OPENAI_API_KEY": "the key of the model provider",
    "OPENAI_BASE_URL": "an OpenAI-compatible API; OpenAI's own unless set",
    "QDRANT_URL": "a Qdrant server; without it a local path that one process can use",
    "QDRANT_API_KEY": "the key of the Qdrant server",
    "EMBEDDING_MODEL": "a model of the provider for dense vectors; without it the index has sparse ones only",
    "SOURCE_DATABASE_URL": "the database that the tables are in, to audit the index by it and to look rows up",
}
"""Variables of other products that we read, and what they are for."""

SECRET = re.compile(r"(PASSWORD|SECRET|API_KEY|TOKEN|CREDENTIAL|OAUTHBEARER_CONFIG|SASL_JAAS|_PEM)", re.IGNORECASE)

_IN_URL = re.compile(r"(?<=://)[^/\s]+@")
"""A user and a password; a password may hold an `@`."""
_PARAMETER = re.compile(r"((?:^|[?&;,\s])\w*(?:password|passwd|pwd|passphrase|secret|token)=)[^&;,\s]+", re.IGNORECASE)
"""A secret among the parameters of a URL, or in a connection string."""

UP_OR = "start `pipeline up` in this folder, or set the variable"


class Settings(BaseModel):
    """The project's own settings. A field's variable is `PIPELINE_` and its name in capitals."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    topic_prefix: str = Field(default="pipeline", description="prefix of all topics, groups and subjects; no dot")
    partitions: int = Field(default=12, ge=1, le=10_000, description="partitions of the topics that are created")
    catalog: Path | None = Field(default=None, description="the catalog file; the one in the package unless set")
    tables: Path | None = Field(default=None, description="the file that maps tables to documents, for `index`")
    cache: Path = Field(default=Path("~/.cache/llm-event-pipeline"), description="where downloads are kept")
    data: Path = Field(default=Path(".run"), description="where embedded parts keep their state")
    drain_seconds: float = Field(default=30.0, ge=0, description="how long a stopping stage may finish its work")
    startup_seconds: float = Field(default=60.0, gt=0, description="how long to wait at start for broker and registry")
    allow_loopback_webhooks: bool = Field(default=False, description="permit http webhooks to this machine")
    probes_host: str = Field(default="127.0.0.1", description="address of /livez, /readyz and /metrics")
    probes_port: int = Field(default=0, ge=0, le=65_535, description="port of the probes; 0 takes a free one")
    log_format: Literal["auto", "json", "console"] = Field(default="auto", description="how log lines are written")
    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = Field(default="INFO", description="the lowest level")


@dataclass(frozen=True, slots=True)
class Value:
    """One configured value and where it comes from."""

    text: str
    origin: str


@dataclass(frozen=True, slots=True)
class Environment:
    """All variables that count: the process's own, then those of a running `pipeline up` in this folder."""

    environ: Mapping[str, str]
    up: Mapping[str, str] = field(default_factory=dict)

    def find(self, name: str) -> Value | None:
        """Look a variable up. Raises ConfigurationError where its `_FILE` cannot be read."""
        if self.environ.get(name):
            return Value(self.environ[name], "environment")
        path = self.environ.get(f"{name}_FILE")
        if path:
            return Value(_read(name, path), f"file {path}")
        if self.up.get(name):
            return Value(self.up[name], "pipeline up")
        return None

    def file_of(self, name: str) -> Path | None:
        """Return the file that a variable's value is read from; None where it is not."""
        path = self.environ.get(f"{name}_FILE")
        return Path(path) if path and not self.environ.get(name) else None

    def get(self, name: str) -> str | None:
        """Look a variable's text up; None where it is unset or empty."""
        found = self.find(name)
        return found.text if found else None

    def need(self, name: str, purpose: str) -> str:
        """Look a variable up that somebody cannot work without. Raises ConfigurationError with the cure."""
        found = self.find(name)
        if found is None:
            raise ConfigurationError(f"{name} is not set ({purpose}): {UP_OR}")
        return found.text

    def starting(self, prefix: str) -> dict[str, Value]:
        """Find all variables whose name begins with `prefix`, those given as files included."""
        found: dict[str, Value] = {}
        for name in sorted({*self.environ, *self.up}):
            if name.startswith(prefix):
                bare = name.removesuffix("_FILE")
                value = self.find(bare)
                if value is not None:
                    found[bare] = value
        return found


@dataclass(frozen=True, slots=True)
class Configured:
    """Checked settings, each stage's concurrency where it is set, and the variables they came from."""

    settings: Settings
    concurrency: Mapping[str, int]
    environment: Environment

    @property
    def data(self) -> Path:
        """The data folder, absolute."""
        return self.settings.data.expanduser().absolute()

    @property
    def cache(self) -> Path:
        """The cache folder, absolute."""
        return self.settings.cache.expanduser().absolute()


def load(environment: Environment, stages: Iterable[str]) -> Configured:
    """Read and check everything. Raises ConfigurationError with one sentence that names the variable."""
    given = environment.starting(OWN)
    fields = {f"{OWN}{name.upper()}": name for name in Settings.model_fields}
    per_stage = {f"{OWN}{stage.upper()}_CONCURRENCY": stage for stage in stages}
    for name in given:
        if name not in fields and name not in per_stage:
            near = difflib.get_close_matches(name, [*fields, *per_stage], n=1)
            raise ConfigurationError(
                f"{name} is not a setting of this program: "
                + (f"did you mean {near[0]}?" if near else "`pipeline config` lists all")
            )
    try:
        settings = Settings.model_validate(
            {fields[name]: value.text for name, value in given.items() if name in fields}
        )
    except ValidationError as error:
        problem = error.errors()[0]
        name = f"{OWN}{str(problem['loc'][0]).upper()}"
        raise ConfigurationError(f"{name} is {given[name].text!r}: {problem['msg']}") from None
    names.check_prefix(settings.topic_prefix)
    concurrency = {stage: _positive(name, given[name].text) for name, stage in per_stage.items() if name in given}
    return Configured(settings, concurrency, environment)


def masked(name: str, text: str) -> str:
    """Return a value fit for showing: secrets and passwords inside URLs are hidden."""
    if SECRET.search(name):
        return MASK
    return _PARAMETER.sub(rf"\1{MASK}", _IN_URL.sub(f"{MASK}@", text))


def _positive(name: str, text: str) -> int:
    if not text.isdigit() or not 1 <= int(text) <= 100_000:
        raise ConfigurationError(f"{name} is {text!r}: use a whole number from 1 to 100000")
    return int(text)


def _read(name: str, path: str) -> str:
    try:
        return Path(path).read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigurationError(f"{name}_FILE names {path}, which cannot be read: {error}") from None
