"""Bytes to events and back: Avro, schema registries, bounded decoding. Knows no Kafka."""
