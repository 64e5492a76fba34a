"""The files that are part of the program: schemas, the embedded broker's pom and properties, the default catalog.

In a checkout they lie beside the package, where people look for them; a wheel carries them inside it.
"""

from __future__ import annotations

from pathlib import Path

_PACKAGE = Path(__file__).resolve().parent


def resource(*parts: str, package: Path = _PACKAGE) -> Path:
    """The path of a file or folder named as in a checkout: `resource("deploy", "kafka", "pom.xml")`.

    Raises FileNotFoundError, which says where it looked and what to do.
    """
    carried = package / "_data"
    root = carried if carried.is_dir() else package.parent
    found = root.joinpath(*parts)
    if not found.exists():
        raise FileNotFoundError(
            f"{'/'.join(parts)} is part of this program but is missing (looked in {root}): "
            "install llm-event-pipeline again, or run it from a complete checkout"
        )
    return found
