"""The budgets find what breaks them, and leave the rest alone."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.checks.budgets import breaches, main


def _breaches(source: str, name: str = "pipeline/core/noun.py") -> list[str]:
    return list(breaches(Path(name), source))


def _function(lines: int, name: str = "f") -> str:
    return f"def {name}():\n" + "    x = 1\n" * (lines - 1)


def test_a_file_has_at_most_400_lines() -> None:
    """400 lines pass, 401 do not."""
    assert [] == _breaches("x = 1\n" * 400)
    assert ["pipeline/core/noun.py: 401 lines, but a file has at most 400: split it by noun."] == _breaches(
        "x = 1\n" * 401
    )


def test_a_function_has_at_most_50_lines() -> None:
    """50 lines pass, 51 do not; nested and async functions count too."""
    assert [] == _breaches(_function(50))
    assert ["pipeline/core/noun.py:1: f has 51 lines, but a function has at most 50."] == _breaches(_function(51))
    nested = "class A:\n" + "".join(f"    {line}\n" for line in f"async {_function(51)}".splitlines())
    assert ["pipeline/core/noun.py:2: f has 51 lines, but a function has at most 50."] == _breaches(nested)


@pytest.mark.parametrize(
    "source", ["from typing import TYPE_CHECKING", "import typing\nif typing.TYPE_CHECKING:\n    import x"]
)
def test_type_checking_imports_are_found(source: str) -> None:
    """Both ways to reach TYPE_CHECKING are found, once each."""
    (found,) = _breaches(source)
    assert "TYPE_CHECKING hides an import" in found


@pytest.mark.parametrize("name", ["utils.py", "test_helpers.py", "kafka_manager.py", "base.py", "common.py"])
def test_vague_file_names_are_found(name: str) -> None:
    """A name that says nothing is found as a word of the file's name, in tests too."""
    (found,) = _breaches("", f"tests/wire/{name}")
    assert "names no noun or verb" in found


def test_words_that_contain_a_vague_one_pass() -> None:
    """`database` is a noun, though it ends in `base`."""
    assert [] == _breaches("", "pipeline/clients/database.py")


@pytest.mark.parametrize(
    "comment",
    [
        "# noqa",
        "# noqa: S101",
        "# noqa: S101, E501",
        "# ruff: noqa: S101",
        "# type: ignore",
        "# type: ignore[arg-type]",
        "# type: ignore[arg-type]  # why",
        "# pragma: no cover",
        "# fmt: off",
    ],
)
def test_a_disabled_rule_without_a_reason_is_found(comment: str) -> None:
    """A reason has two words at least."""
    (found,) = _breaches(f"x = 1  {comment}\n")
    assert found.startswith("pipeline/core/noun.py:1: ")
    assert comment in found


@pytest.mark.parametrize(
    "comment",
    [
        "# noqa: S101  # the caller checked it",
        "# noqa: S101, E501 - the caller checked it",
        "# type: ignore[arg-type]  # the stubs lag behind",
        "# pragma: no cover  # only on macOS",
        "# an ordinary remark about noqa",
    ],
)
def test_a_disabled_rule_with_a_reason_passes(comment: str) -> None:
    """The reason stands on the line itself."""
    assert [] == _breaches(f"x = 1  {comment}\n")


def test_text_in_strings_disables_nothing() -> None:
    """Only comments are looked at."""
    assert [] == _breaches('x = "# noqa"\n')


def test_a_test_states_its_fact() -> None:
    """A test function without a docstring is found; a fixture beside it is free."""
    source = 'def test_it():\n    pass\ndef fixture():\n    pass\ndef test_that():\n    """A fact."""\n'
    assert ["tests/test_x.py:1: test_it has no docstring: state the fact that it proves."] == _breaches(
        source, "tests/test_x.py"
    )


def test_a_breach_is_printed_and_the_exit_code_is_1(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Clean sources print nothing and exit 0; a breach is one line and exit 1."""
    package = tmp_path / "pipeline"
    package.mkdir()
    (package / "noun.py").write_text("x = 1\n")
    assert 0 == main(tmp_path)
    assert "" == capsys.readouterr().out
    (package / "utils.py").write_text("x = 1\n")
    assert 1 == main(tmp_path)
    assert 1 == capsys.readouterr().out.count("\n")
