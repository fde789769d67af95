"""The engine of Opsdeck: journal, procedures, monitoring and serving, without a screen."""

__version__ = "0.1.0"
