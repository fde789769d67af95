"""From data to an approved model: what is trained, measured, compared and released."""
