"""The name of a webhook endpoint, as the verbs take it: completed from the catalog that is configured."""

from __future__ import annotations

import os
from typing import Annotated

import typer

from pipeline import wiring
from pipeline.core.errors import PipelineError
from pipeline.settings import Environment, load


def endpoint_names(incomplete: str) -> list[str]:
    """Complete the name of an endpoint; with none where the settings are wrong: the verb will say so."""
    try:
        known = wiring.catalog_of(load(Environment(dict(os.environ)), wiring.STAGES)).endpoints
    except PipelineError:
        return []
    return [name for name in known if name.startswith(incomplete)]


Name = Annotated[str, typer.Argument(help="The endpoint's name in the catalog.", autocompletion=endpoint_names)]
Where = Annotated[str | None, typer.Option("--endpoint", help="Only to this endpoint.", autocompletion=endpoint_names)]
