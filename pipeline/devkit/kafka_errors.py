"""What can go wrong with the embedded broker.

EmbeddedKafkaError      told to a person: what happened, where, what to do
  PortTaken             a port that the broker was to listen on is in use
  Missing               the machine lacks something that a real broker needs; the test broker can do without
"""


class EmbeddedKafkaError(RuntimeError):
    """The embedded broker cannot be had. The text says what happened, where, and what to do."""


class PortTaken(EmbeddedKafkaError):
    """A port that the broker was to listen on is in use."""


class Missing(EmbeddedKafkaError):
    """The machine lacks something that a real broker needs; the text names it and the cure."""
