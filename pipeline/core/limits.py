"""Bounds of everything that is read from outside. Each is far above honest use and far below harm."""

MAX_RECORD_BYTES = 1_048_576
"""The largest value that is decoded."""
MAX_MESSAGE_BYTES = 1_048_576
"""`max.message.bytes` of our work topics."""
MAX_COPY_BYTES = 2_097_152
"""`max.message.bytes` of retry and dead-letter topics: a copy carries more headers than its original."""
MAX_FOREIGN_BYTES = 16 * 1024 * 1024
"""The largest record of a foreign topic: a row's state before a change and after it, and that in JSON."""
MAX_FOREIGN_COPY_BYTES = MAX_FOREIGN_BYTES + 1_048_576
"""`max.message.bytes` of retry and dead-letter topics of a stage that reads foreign topics; producers send no more."""
MAX_COLLECTION_ITEMS = 10_000
"""The most items that one array or map of a decoded record may claim."""
MAX_INPUT_CHARACTERS = 200_000
"""The longest request input that is looked at at all; types set their own, smaller limit in tokens."""
CHARACTERS_PER_TOKEN = 3
"""A conservative offline estimate; real tokenisers need tables from the network, and `usage` settles the account."""


def estimate_tokens(text: str) -> int:
    """Estimate the tokens of `text`, rather too many than too few: non-ASCII text costs up to a token a character."""
    ascii_characters = sum(map(str.isascii, text)) if not text.isascii() else len(text)
    return -(-ascii_characters // CHARACTERS_PER_TOKEN) + (len(text) - ascii_characters)
