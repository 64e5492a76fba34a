"""Files of settings: YAML, read with bounds, and no key twice."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import yaml

from pipeline.core.errors import ConfigurationError

MAX_BYTES = 1_000_000
"""The largest file."""
MAX_NODES = 100_000
"""The most values in it, with each alias counted as often as it is used: a small file can unfold into gigabytes."""


class _Loader(yaml.SafeLoader):
    """Plain values only, and a key that is given twice is an error: YAML would silently keep the last."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        keys = [self.construct_object(key, deep=True) for key, _ in node.value if key.tag != "tag:yaml.org,2002:merge"]
        twice = next((key for place, key in enumerate(keys) if key in keys[:place]), None)
        if twice is not None:
            raise yaml.constructor.ConstructorError(None, None, f"the key {twice!r} is given twice", node.start_mark)
        return super().construct_mapping(node, deep)


def read_yaml(path: Path, noun: str, variable: str) -> object:
    """Read the file at `path`, which is called `noun` in sentences and is named by an environment `variable`.

    Raises ConfigurationError with one sentence: the file, where in it, what is wrong.
    """
    try:
        with path.open("rb") as file:
            text = file.read(MAX_BYTES + 1)
    except OSError as error:
        reason = error.strerror or type(error).__name__
        raise ConfigurationError(f"{noun} {path}: {reason}; set {variable} to a readable file") from None
    if len(text) > MAX_BYTES:
        raise ConfigurationError(f"{noun} {path}: larger than {MAX_BYTES} bytes")
    return _parse(text, f"{noun} {path}")


def _parse(text: bytes, name: str) -> object:
    try:
        data = yaml.load(text, _Loader)  # noqa: S506  # a SafeLoader with one more check
        _count(data, MAX_NODES)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        where = f" line {mark.line + 1}, column {mark.column + 1}:" if mark else ""
        raise ConfigurationError(f"{name}:{where} {error.problem or error.context}") from None
    except (yaml.YAMLError, ValueError, TypeError, RecursionError) as error:
        told = " ".join(str(error).split())[:200]
        raise ConfigurationError(f"{name}: not YAML that can be read: {told}") from None
    return data


def _count(data: object, room: int) -> int:
    """Return how much of `room` is left beside the values in `data`. Raises ValueError where there is none."""
    if room <= 0:
        raise ValueError(f"more than {MAX_NODES} values")
    room -= 1
    for part in _parts(data):
        room = _count(part, room)
    return room


def _parts(data: object) -> Iterable[object]:
    if not isinstance(data, dict):
        return data if isinstance(data, list) else ()
    odd = next((key for key in data if not isinstance(key, str)), None)
    if odd is not None:
        raise ValueError(f"the key {odd!r} is read as something else than text; put it into quotes")
    return data.values()
