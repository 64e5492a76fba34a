"""The catalog's file."""

from __future__ import annotations

from pathlib import Path

from pipeline.core.catalog import Catalog, parse_catalog
from pipeline.settings_yaml import read_yaml


def load_catalog(path: Path) -> Catalog:
    """Read and check the catalog at `path`.

    Raises ConfigurationError with one sentence: the file, where in it, what is wrong.
    """
    return parse_catalog(read_yaml(path, "catalog", "PIPELINE_CATALOG"), str(path))
