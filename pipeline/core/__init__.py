"""Values and rules: what the pipeline speaks about and decides by. Pure: no clock, no chance, no I/O."""
