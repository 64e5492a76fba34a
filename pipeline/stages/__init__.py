"""What the pipeline does, a file for each stage."""
