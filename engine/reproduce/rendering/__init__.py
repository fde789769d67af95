"""Container image and Kubernetes objects of a model server, from a project's settings."""
