"""What a developer needs to run it all on one machine: an embedded Kafka, simulators, samples, fakes, a test clock."""
