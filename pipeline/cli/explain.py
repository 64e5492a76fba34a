"""`pipeline explain`: the whole story of one job, from the topics alone."""

from __future__ import annotations

from typing import Annotated

import typer

from pipeline import explaining, wiring
from pipeline.cli.console import bars, print_json, print_text
from pipeline.cli.session import ERR, FAILED, complaints, configure, run, say
from pipeline.core.letter_filter import moment
from pipeline.ops.explain import Answer, Question
from pipeline.ops.explain_text import lines, plain
from pipeline.ops.log_scan import Progress
from pipeline.settings import Configured


def register(app: typer.Typer) -> None:
    """Add the verb to the command line."""
    app.command(epilog="Example: pipeline explain 9b2f7c1e-5d0a-5c55-9d0c-0f6f6a1f6e51")(explain)


def explain(
    identity: Annotated[str, typer.Argument(metavar="ID", help="Of a job, a trace, a webhook or a dead letter.")],
    since: Annotated[
        str | None, typer.Option("--since", help="Read only what was written since: a time, or an age such as 2h.")
    ] = None,
    show: Annotated[
        bool, typer.Option("--show-payload", help="Show what people wrote and were answered, too.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Tell what happened to a job, when, where and why, and what it waits for now.

    All topics are read once; nothing is written. Ends with 0 where something is known of the id, else with 1.
    """
    configured = configure(level="WARNING")
    with complaints():
        since_ms = moment(since, wiring.CLOCK(), "--since") if since is not None else None
    question = Question(identity, since_ms, show_payload=show)
    with bars(ERR) as progress:
        answer = run(_answer(configured, question, progress))
    _tell(question, answer, as_json=as_json)
    raise typer.Exit(0 if answer.stories else FAILED)


async def _answer(configured: Configured, question: Question, progress: Progress) -> Answer:
    async with explaining.open_explainer(configured, progress, say) as explainer:
        return await explainer.answer(question)


def _tell(question: Question, answer: Answer, *, as_json: bool) -> None:
    if as_json:
        told = {"id": question.id, "jobs": [plain(story) for story in answer.stories], "remarks": answer.remarks}
        print_json(told)
        return
    for number, story in enumerate(answer.stories):
        if number:
            print()
        for line in lines(story):
            print_text(line)
    for remark in answer.remarks:
        say(remark)
    if not answer.stories:
        say(_unknown(question))


def _unknown(question: Question) -> str:
    since = "since then" if question.since_ms is not None else "on the topics, which keep records for some days only"
    return f"nothing is known of {question.id[:200]}: no job, trace, webhook or dead letter has this id {since}"
