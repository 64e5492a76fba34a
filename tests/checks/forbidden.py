"""What must not be written down: this machine's paths, and where packages come from.

`python -m tests.checks.forbidden` prints a sentence for each find. The names are put together here, so that this file
is clean itself.
"""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path

_HOMES = "|".join(("home", "root", "Users", "work", "private"))
_MACHINE_PATH = re.compile(rf"(?<![\w.~:/$}}-])/(?:{_HOMES})/[\w.-]+")
_REGISTRIES = tuple(
    ".".join(parts)
    for parts in (
        ("pypi", "org"),
        ("pythonhosted", "org"),
        ("registry", "npmjs", "org"),
        ("repo1", "maven", "org"),
        ("repo", "maven", "apache", "org"),
        ("proxy", "golang", "org"),
        ("static", "crates", "io"),
    )
)
_ADDRESS = re.compile(
    r"://|--(?:extra-)?index-url|--find-links|@\s*file:|<(?:plugin)?repositor(?:y|ies)>", re.IGNORECASE
)
_PINNED = re.compile(r"(?:^requirements.*\.(?:lock|txt|in)$|\.lock$|^pom\.xml$)")


def finds(path: Path, text: str, root: Path) -> Iterator[str]:
    """Yield a sentence for each forbidden thing in the text of the file at `path`, in the checkout at `root`."""
    for number, line in enumerate(text.splitlines(), 1):
        where = f"{path}:{number}"
        machine = _MACHINE_PATH.search(line)
        if machine or (len(root.parts) > 2 and str(root) in line):
            yield f"{where}: an absolute path of a machine ({machine[0] if machine else root}): make it relative."
        for host in _REGISTRIES:
            if host in line:
                yield f"{where}: names the package registry {host}: that belongs into each machine's own settings."
        if _PINNED.search(path.name) and _ADDRESS.search(line):
            yield f"{where}: a lock or pom file holds names, versions and hashes, no address: {line.strip()[:80]}"


def files(root: Path) -> Iterable[Path]:
    """Every file that is or may be committed, relative to `root`; without git, every file outside hidden folders."""
    command = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    try:
        listed = subprocess.run(command, cwd=root, capture_output=True, check=True).stdout.decode().split("\0")
    except (OSError, subprocess.CalledProcessError):
        every = (path.relative_to(root) for path in root.rglob("*"))
        listed = [str(path) for path in every if not any(part.startswith(".") for part in path.parts[:-1])]
    return [Path(name) for name in sorted(listed) if name and (root / name).is_file()]


def _text(path: Path) -> str:
    try:
        return path.read_text("utf-8")
    except UnicodeDecodeError:
        return ""  # a binary file: golden events and the like


def main(root: Path) -> int:
    """Print every find below `root`; the exit code is 1 if there is one."""
    found = [line for path in files(root) for line in finds(path, _text(root / path), root)]
    print(*found, sep="\n", end="\n" if found else "")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main(Path.cwd()))
