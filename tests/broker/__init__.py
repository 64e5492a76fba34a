"""Tests of the package `pipeline.broker`."""
