"""Tests of the schemas, their golden events, and their equality with the payload models."""
