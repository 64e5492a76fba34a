"""The whole program: real processes, a real broker, kill -9."""
