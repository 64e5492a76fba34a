"""How the demonstrations lay out what they have shown."""

from __future__ import annotations

from collections.abc import Sequence

from rich.markup import escape
from rich.table import Table

from pipeline.devkit.cdc_demo import Step
from pipeline.devkit.demo import Row, Summary


def answers(rows: Sequence[Row]) -> Table:
    """Lay out what became of each sample request."""
    table = Table("request", "answer", "citations", "tokens", "cost $", "time s", "", expand=True)
    for row in rows:
        mark = "[green]right[/]" if row.right else f"[red]{'wrong' if row.outcome == 'completed' else row.outcome}[/]"
        table.add_row(
            escape(row.request.input),
            escape(row.answer),
            escape(", ".join(dict.fromkeys(row.citations))),
            str(row.tokens),
            f"{row.cost_usd:.6f}",
            f"{row.seconds:.2f}",
            mark,
        )
    return table


def changes(steps: Sequence[Step]) -> Table:
    """Lay out how an answer changed with the rows of the source."""
    table = Table("committed before", "answer", "citations", "s to the answer", "", expand=True)
    for step in steps:
        mark = "[green]right[/]" if step.right else "[red]wrong[/]"
        cited = escape(", ".join(step.citations))
        table.add_row(escape(step.sql or "(the snapshot)"), escape(step.answer), cited, f"{step.seconds:.2f}", mark)
    return table


def summary_line(summary: Summary) -> str:
    """Say in one line how the demo went."""
    return (
        f"{summary.submitted} submitted, {summary.delivered} delivered and verified, {summary.correct} right, "
        f"{summary.failed} failed, {summary.dead} dead, {summary.duplicates} duplicates, in {summary.seconds:.1f} s "
        f"on Kafka ({summary.broker})"
    )
