"""A pipeline's run done again from its manifest: code, environment, data and training, and then compared."""
