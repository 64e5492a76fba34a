"""What a fact says, in words: the sentences that a story and a live tail share. Pure."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from pipeline.core.record import Position
from pipeline.ops.explain_facts import Fact
from pipeline.ops.explain_layout import Kind, Layout
from pipeline.ops.words import counted, dollars, when


def at(layout: Layout, position: Position) -> str:
    """Spell where a record stands: `topic:partition@offset`, the topic without the pipeline's prefix."""
    return f"{layout.short(position.topic)}:{position.partition}@{position.offset}"


def sentence(fact: Fact) -> str:
    """Say what a record is to its job."""
    text = _WORDS[fact.place.kind](fact)
    return f"{text}; cannot be decoded: {fact.problem}" if fact.problem else text


def _request(fact: Fact) -> str:
    what = str(fact.says.get("type") or fact.says.get("source") or fact.place.declared.noun)
    return f"{what} of {fact.job.tenant}, {fact.size} bytes" if fact.says else f"{what}, {fact.size} bytes"


def _output(fact: Fact) -> str:
    says = fact.says
    told = [
        f"to {says['endpoint']}" if "endpoint" in says else "",
        str(says.get("lane", "")),
        str(says.get("model", "")),
        f"{says['input_tokens']} tokens of input" if "input_tokens" in says else "",
        counted(int(says["passages"]), "passage") if "passages" in says else "",
        tokens(says),
        counted(int(says["citations"]), "citation") if "citations" in says else "",
        str(says.get("finish_reason", "")),
        f"{says['latency_ms']} ms" if "latency_ms" in says else "",
        dollars(float(says["cost_usd"])) if "cost_usd" in says else "",
        f"{fact.size} bytes",
    ]
    return ", ".join(filter(None, told))


def tokens(says: Mapping[str, Any]) -> str:
    """Say how many tokens went in and came out; empty where that is not told."""
    if "prompt_tokens" not in says:
        return ""
    about = "about " if says.get("usage_estimated") else ""
    return f"{about}{says['prompt_tokens']} + {says.get('completion_tokens', 0)} tokens"


def reason(code: object, why: object) -> str:
    """Join a failure's code and its reason, of which either may be missing."""
    return ": ".join(str(part) for part in (code, why) if part) or "no reason told"


def _failure(fact: Fact) -> str:
    says = fact.says
    if says.get("recoverable"):
        return f"stands in the dead letters ({reason(says.get('code'), says.get('reason'))})"
    return reason(says.get("code"), says.get("reason"))


def _delivery(fact: Fact) -> str:
    says = fact.says
    to = f" to {says['endpoint']}" if "endpoint" in says else ""
    told = [
        f"{says.get('outcome', 'unknown')}{to}",
        str(says.get("kind", "")),
        f"status {says['status']}" if "status" in says else "",
        f"try {says['attempts']}" if says.get("attempts") else "",
        f"{says['duration_ms']} ms" if says.get("duration_ms") else "",
        reason(says.get("code"), says.get("reason")) if says.get("code") or says.get("reason") else "",
    ]
    return ", ".join(filter(None, told))


def _retry(fact: Fact) -> str:
    if due_at_once(fact):
        return f"brought back, due at once, {tries(fact)}{replayed(fact)}"
    tier = fact.place.tier.name if fact.place.tier else "?"
    until = f" until {when(fact.not_before_ms)}" if fact.not_before_ms else ""
    return f"waits in {tier}{until}, {tries(fact)}{replayed(fact)}{cause(fact, ': ')}"


def cause(fact: Fact, before: str) -> str:
    """Say why a copy waits, after `before`; empty where nobody told."""
    why = fact.waits_for
    return f"{before}{reason(why.get('code'), why.get('reason'))}" if why else ""


def due_at_once(fact: Fact) -> bool:
    """Whether a copy was due already when it was written, as what a replay brings back is: no tier holds it."""
    return bool(fact.replay) and 0 < fact.not_before_ms <= fact.at_ms


def tries(fact: Fact) -> str:
    """Count what has happened to a record so far."""
    told = [counted(fact.tries.attempts, "failed attempt")]
    if fact.tries.timeouts:
        told.append(f"{fact.tries.timeouts} of them cut")
    if fact.tries.deferrals:
        told.append(counted(fact.tries.deferrals, "deferral"))
    return ", ".join(told)


def replayed(fact: Fact) -> str:
    """Say that a copy was brought back by a person; empty where it was not."""
    replay = fact.replay
    if not replay:
        return ""
    told = [f"replay {replay.get('id', '?')}"]
    told += [f"{name} {replay[name]}" for name in ("count", "run", "patch") if name in replay]
    return f" ({', '.join(told)})"


def _dead(fact: Fact) -> str:
    dead = fact.dead
    exception = f" ({dead['exception']})" if "exception" in dead else ""
    return f"{reason(dead.get('code'), dead.get('reason'))}{exception}, {tries(fact)}{replayed(fact)}"


_WORDS: Mapping[Kind, Callable[[Fact], str]] = {
    "request": _request,
    "document": _request,
    "foreign": _request,
    "output": _output,
    "failure": _failure,
    "delivery": _delivery,
    "retry": _retry,
    "dead letter": _dead,
}
