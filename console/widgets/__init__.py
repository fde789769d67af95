"""The pieces of the screens: each draws lines of text and repaints only what changed."""
