"""Prompt templates: Jinja2 from the catalog, filled with data that can never be taken for part of the template.

Every value that a template writes is escaped as XML, by the environment and not by the template's author, so retrieved
text can neither close its own tag nor open another. Values are data to Jinja2, too: they are never compiled.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import jinja2
from jinja2.sandbox import SandboxedEnvironment

from pipeline.core.catalog import Catalog, Template
from pipeline.core.errors import ConfigurationError, Reject
from pipeline.core.payloads import Passage

_ENTITIES = str.maketrans({"&": "&amp;", "<": "&lt;", ">": "&gt;", '"': "&quot;"})
_SAMPLE = Passage(source="s", document="d", chunk=0, version=1, score=1.0, title="t", text="x")


def escape(value: object) -> str:
    """Escape a value for XML text and double-quoted attributes. Apostrophes stay: they close nothing."""
    return str(value).translate(_ENTITIES)


@dataclass(frozen=True, slots=True)
class Prompts:
    """One compiled template: the system and the user message."""

    system: jinja2.Template
    user: jinja2.Template

    def render(self, question: str, passages: Sequence[Passage]) -> tuple[str, str]:
        """Return the system and the user message. Raises Reject where the template cannot be filled: our fault."""
        values = {"input": question, "passages": passages}
        try:
            return self.system.render(values).strip(), self.user.render(values).strip()
        except jinja2.TemplateError as error:
            raise Reject(f"the prompt template cannot be filled: {error}", code="template") from error


def compile_templates(catalog: Catalog) -> Mapping[str, Prompts]:
    """Compile every template once and fill each with a sample.

    Raises ConfigurationError that names the template which is malformed or uses a variable that there is not.
    """
    # Escaping is done by `finalize`, for every value; autoescape would also write apostrophes as entities.
    environment = SandboxedEnvironment(
        undefined=jinja2.StrictUndefined,
        autoescape=False,
        finalize=escape,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return {name: _compile(environment, name, template) for name, template in catalog.templates.items()}


def _compile(environment: SandboxedEnvironment, name: str, template: Template) -> Prompts:
    try:
        prompts = Prompts(environment.from_string(template.system), environment.from_string(template.user))
    except jinja2.TemplateError as error:
        raise ConfigurationError(f"catalog: templates.{name} is no Jinja2 template: {error}") from None
    try:
        prompts.render("question", [_SAMPLE])
    except Reject as error:
        raise ConfigurationError(f"catalog: templates.{name}: {error.reason}") from None
    return prompts
