"""What a stage depends on, whether it has to run, and where its output is kept."""
