"""Moving traffic between the versions of a model."""
