"""Tests: a folder for each layer; contracts are suites that run on a fake and on the real thing."""
