"""The procedure language and everything that executes it."""
