"""Tests of pipeline/cli/entry.py: the way to a verb alone leads where the way by all verbs does."""

from __future__ import annotations

import pytest
import typer
from typer.testing import CliRunner

from pipeline.cli.app import app
from pipeline.cli.entry import APART, program


def verbs(of: typer.Typer) -> set[str]:
    """Name the verbs and the groups of verbs."""
    named = {one.name or getattr(one.callback, "__name__", "") for one in of.registered_commands}
    return named | {one.name or "" for one in of.registered_groups}


@pytest.mark.parametrize("verb", APART)
def test_a_verb_apart_is_the_same_verb(verb: str) -> None:
    """Its help is word for word what it is where all verbs are known, and only its module's verbs are with it."""
    few = program(verb)
    assert verb in verbs(few)
    assert verbs(few) <= {name for name, module in APART.items() if module == APART[verb]}
    alone, among_all = (CliRunner().invoke(of, [verb, "--help"]) for of in (few, app))
    assert alone.exit_code == 0
    assert alone.output == among_all.output


@pytest.mark.parametrize("verb", ["", "--help", "--version", "rnu", "topics"])
def test_for_all_else_all_verbs_are_there(verb: str) -> None:
    """No verb, an option, a mistake, and verbs that are not apart."""
    assert program(verb) is app
    assert verbs(app) >= set(APART)


def test_an_option_before_the_verb_is_heard() -> None:
    """The version is told by either way."""
    said = {CliRunner().invoke(of, ["--version"]).output for of in (program("run"), app)}
    assert len(said) == 1
    assert said.pop().startswith("pipeline ")
