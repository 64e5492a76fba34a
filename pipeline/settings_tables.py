"""The file that maps tables to documents."""

from __future__ import annotations

from pathlib import Path

from pipeline.core.tables import Tables, parse_tables
from pipeline.settings_yaml import read_yaml


def load_tables(path: Path) -> Tables:
    """Read and check the mapping at `path`.

    Raises ConfigurationError with one sentence: the file, where in it, what is wrong and what to do.
    """
    return parse_tables(read_yaml(path, "tables", "PIPELINE_TABLES"), str(path))
