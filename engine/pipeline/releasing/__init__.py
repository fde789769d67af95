"""The registry, the champion, and what a release takes of a run."""
