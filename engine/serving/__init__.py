"""Serving: the gateway that splits traffic between variants, and the model server behind it.

Both run as processes of their own (`python -m engine.serving.gateway`, `python -m
engine.serving.model_server`) and are spoken to over HTTP. Nothing here imports any other part of
the engine but `engine.errors`.
"""
