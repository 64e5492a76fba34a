"""Tests of pipeline/telemetry."""
