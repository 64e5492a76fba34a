"""Tests of the devkit."""
