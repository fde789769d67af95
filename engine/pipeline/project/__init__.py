"""A project: the folder with `opsdeck.pipeline.yaml`, and what that file says."""
