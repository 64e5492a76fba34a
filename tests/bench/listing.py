"""`python -m tests.bench.listing <result> <letters>`: lists all dead letters, and leaves what that has cost."""

from __future__ import annotations

import json
import resource
import sys
from pathlib import Path

from typer.testing import CliRunner

from pipeline.cli.app import app


def main() -> int:
    """List, and check that all letters were counted."""
    result, wanted = Path(sys.argv[1]), int(sys.argv[2])
    told = CliRunner().invoke(app, ["dlq", "list", "--json"])
    if told.exit_code:
        print(told.output, file=sys.stderr)
        return told.exit_code
    counted = json.loads(told.stdout.partition("\n")[0])["letters"]
    if counted != wanted:
        print(f"{counted} letters were counted, and there are {wanted}", file=sys.stderr)
        return 1
    usages = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    # Of the largest process; in KB on Linux, in bytes on macOS.
    size = max(one.ru_maxrss for one in usages) / (1 << 20 if sys.platform == "darwin" else 1 << 10)
    cpu = sum(one.ru_utime + one.ru_stime for one in usages)
    result.write_text(json.dumps({"cpu": cpu, "mebibytes": size}), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
