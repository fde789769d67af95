"""The views, one file each; what they show is computed by pure functions of the state."""
