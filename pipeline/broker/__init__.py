"""Moves records: the Kafka adapter and its in-memory double."""
