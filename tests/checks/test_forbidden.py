"""Machine paths and registry addresses are found where they must not be."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.checks.forbidden import finds, main

ROOT = Path("/somewhere/over/there")
HOME = "/" + "home" + "/ann/project"
REGISTRY = "pypi" + ".org"


def _finds(text: str, name: str = "README.md") -> list[str]:
    return list(finds(Path(name), text, ROOT))


@pytest.mark.parametrize("text", [f"cd {HOME}", f'"{HOME}"', f"see {ROOT}/x"])
def test_a_path_of_a_machine_is_found(text: str) -> None:
    """Home folders and the checkout's own place are found, with the line number."""
    (found,) = _finds(f"fine\n{text}")
    assert found.startswith("README.md:2: an absolute path of a machine")


@pytest.mark.parametrize("text", ["/etc/hosts", "~/" + "work" + "/x", "GET /jobs/1", "x/" + "home" + "/ann"])
def test_other_paths_pass(text: str) -> None:
    """System paths, relative paths and routes are no machine's own."""
    assert [] == _finds(text)


def test_a_registry_host_is_found_in_any_file() -> None:
    """The address of a package registry is each machine's own business."""
    (found,) = _finds(f"get it from {REGISTRY}")
    assert "names the package registry" in found


@pytest.mark.parametrize("line", ["--index-url x", "x @ file:///x", "<repository>", "# via https" + "://example.com"])
def test_an_address_is_found_in_lock_and_pom_files(line: str) -> None:
    """Locks and poms hold names and versions; elsewhere the same text passes."""
    assert 1 == len(_finds(line, "requirements-dev.lock"))
    assert 1 == len(_finds(line, "deploy/kafka/pom.xml"))
    assert [] == _finds(line, "README.md")


def test_a_find_is_printed_and_the_exit_code_is_1(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A folder without git is searched as well; hidden folders and binary files are not."""
    (tmp_path / "binary.bin").write_bytes(b"\xff\xfe" + HOME.encode())
    hidden = tmp_path / ".cache"
    hidden.mkdir()
    (hidden / "x.txt").write_text(HOME)
    assert 0 == main(tmp_path)
    (tmp_path / "x.txt").write_text(HOME)
    assert 1 == main(tmp_path)
    assert 1 == capsys.readouterr().out.count("\n")
