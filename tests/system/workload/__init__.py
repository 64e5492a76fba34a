"""A workload on the real broker in the manner of Jepsen's for Kafka: unique values, a nemesis, and a checker."""
