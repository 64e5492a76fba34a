"""Where the program finds the files that are part of it."""

from __future__ import annotations

from pathlib import Path

import pytest

from pipeline.resources import resource


def _write(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("x")
    return path


def test_a_checkout_has_them_beside_the_package(tmp_path: Path) -> None:
    """Without a `_data` folder in the package, names are looked up beside it."""
    expected = _write(tmp_path / "schemas" / "requests" / "v1.avsc")
    assert expected == resource("schemas", "requests", "v1.avsc", package=tmp_path / "pipeline")


def test_a_wheel_has_them_inside_the_package(tmp_path: Path) -> None:
    """With a `_data` folder in the package, what lies beside the package is somebody else's."""
    _write(tmp_path / "schemas" / "requests" / "v1.avsc")
    expected = _write(tmp_path / "pipeline" / "_data" / "schemas" / "requests" / "v1.avsc")
    assert expected == resource("schemas", "requests", "v1.avsc", package=tmp_path / "pipeline")


def test_a_missing_one_is_named_with_the_cure(tmp_path: Path) -> None:
    """The error names the file, the folder that was searched, and what to do."""
    with pytest.raises(FileNotFoundError, match=r"deploy/pom\.xml is part of .*looked in .*: install .* again"):
        resource("deploy", "pom.xml", package=tmp_path / "pipeline")
