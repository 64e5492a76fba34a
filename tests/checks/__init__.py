"""Checks of the source itself, run by `make check`: size budgets and things that must not be written down."""
