"""The five ways a handler may end without a result, and the errors of configuration.

    PipelineError
    ├── Outcome              a handler's verdict on one record (design section 5)
    │   ├── Fail             the request itself cannot be served: a failure event, the job ends
    │   ├── Reject           our fault and known: dead letter at once
    │   ├── Retry            may work next time: one attempt
    │   ├── Defer            not our turn: no attempt
    │   └── Halt             going on would do harm: the stage stops
    └── ConfigurationError   the person who started us has something to mend

Any other exception out of a handler counts as `Retry`.
"""

from __future__ import annotations


class PipelineError(Exception):
    """Everything this project raises on purpose."""


class Outcome(PipelineError):
    """A verdict on one record. `reason` is one sentence; it reaches people, so it never holds a secret."""

    def __init__(self, reason: str, *, code: str | None = None) -> None:
        """Keep the sentence for people and the stable `code` for programs."""
        super().__init__(reason)
        self.reason = reason
        self.code = code or type(self).__name__.lower()


class Fail(Outcome):
    """The request itself cannot be served: invalid, refused, over budget, too late, cancelled."""


class Reject(Outcome):
    """The record cannot be handled and that is our fault: undecodable, or a bug we know."""


class Retry(Outcome):
    """May work next time. `after` is the least number of seconds to wait; None leaves it to the stage's policy."""

    def __init__(self, reason: str, *, after: float | None = None, code: str | None = None) -> None:
        """Keep the wish for a delay beside the reason."""
        super().__init__(reason, code=code)
        self.after = after


class Defer(Outcome):
    """Not our turn: a rate limit, an open circuit, an index that is down. `until` is in seconds since the epoch."""

    def __init__(self, reason: str, *, until: float, code: str | None = None) -> None:
        """Keep the time before which another try is pointless."""
        super().__init__(reason, code=code)
        self.until = until


class Halt(Outcome):
    """Going on would do harm: stop taking, settle or abandon what runs, commit the frontier, exit non-zero."""


class ConfigurationError(PipelineError):
    """What was configured cannot work. The message names the variable or file and the cure, in one sentence."""
