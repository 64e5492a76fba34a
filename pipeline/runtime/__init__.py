"""Runs any stage: takes, orders, retries, settles and commits. Knows no stage."""
