"""Metrics, their intervals, and tests of two models on the same rows."""
