"""Size and manner of the source: `python -m tests.checks.budgets` prints a sentence for each breach.

Complexity and arguments are the linter's business (pyproject.toml); this file asks what no linter asks.
"""

from __future__ import annotations

import ast
import io
import re
import sys
import tokenize
from collections.abc import Iterable, Iterator
from pathlib import Path

FILE_LINES = 400
FUNCTION_LINES = 50
VAGUE_NAMES = {"base", "common", "helper", "helpers", "manager", "util", "utils"}
FOLDERS = ("pipeline", "tests")

_DISABLED = re.compile(
    r"#\s*(?:ruff:\s*)?(?:noqa(?::\s*[A-Z]+[0-9]+(?:[,\s]+[A-Z]+[0-9]+)*)?|type:\s*ignore(?:\[[^\]]*\])?|pragma:\s*no\s+(?:cover|branch)"
    r"|fmt:\s*(?:off|skip)|mypy:\s*[\w-]+(?:=\S+)?)(?P<reason>.*)",
    re.IGNORECASE,
)
_REASON = re.compile(r"\w+\W+\w+")  # two words at least


def breaches(path: Path, source: str) -> Iterator[str]:
    """Yield one sentence for each budget that the file at `path` breaks."""
    tree = ast.parse(source, str(path))
    yield from _file(path, source)
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            yield from _function(path, node)
        elif isinstance(node, ast.Import | ast.ImportFrom | ast.Attribute):
            yield from _type_checking(path, node)
    yield from _disabled_rules(path, source)


def _file(path: Path, source: str) -> Iterator[str]:
    lines = len(source.splitlines())
    if lines > FILE_LINES:
        yield f"{path}: {lines} lines, but a file has at most {FILE_LINES}: split it by noun."
    vague = VAGUE_NAMES & set(re.split(r"[_.]", path.name))
    if vague:
        yield f"{path}: '{vague.pop()}' names no noun or verb: call the file by what it is or does."


def _function(path: Path, node: ast.FunctionDef | ast.AsyncFunctionDef) -> Iterator[str]:
    lines = (node.end_lineno or node.lineno) - node.lineno + 1
    if lines > FUNCTION_LINES:
        yield f"{path}:{node.lineno}: {node.name} has {lines} lines, but a function has at most {FUNCTION_LINES}."
    if path.name.startswith("test_") and node.name.startswith("test_") and not ast.get_docstring(node):
        yield f"{path}:{node.lineno}: {node.name} has no docstring: state the fact that it proves."


def _type_checking(path: Path, node: ast.Import | ast.ImportFrom | ast.Attribute) -> Iterator[str]:
    names = {node.attr} if isinstance(node, ast.Attribute) else {alias.name for alias in node.names}
    if "TYPE_CHECKING" in names:
        yield f"{path}:{node.lineno}: TYPE_CHECKING hides an import: import it openly, or move the code."


def _disabled_rules(path: Path, source: str) -> Iterator[str]:
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        found = _DISABLED.search(token.string) if token.type == tokenize.COMMENT else None
        if found and not _REASON.search(found["reason"]):
            yield f"{path}:{token.start[0]}: '{token.string.strip()}' disables a rule but gives no reason on its line."


def sources(root: Path) -> Iterable[Path]:
    """The Python files that the budgets hold for, in order."""
    return sorted(path for folder in FOLDERS for path in (root / folder).rglob("*.py"))


def main(root: Path) -> int:
    """Print every breach below `root`; the exit code is 1 if there is one."""
    found = [line for path in sources(root) for line in breaches(path.relative_to(root), path.read_text("utf-8"))]
    print(*found, sep="\n", end="\n" if found else "")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main(Path.cwd()))
