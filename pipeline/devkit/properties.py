"""Java's properties files, as far as ours go: a `name=value` a line, and comments."""

from __future__ import annotations

from pathlib import Path


def read_properties(file: Path) -> dict[str, str]:
    """The properties of a file, in its order."""
    lines = file.read_text(encoding="utf-8").splitlines()
    return dict(line.split("=", 1) for line in lines if line and not line.startswith("#"))
