"""Shipshape: a Microsoft Teams bot that keeps a company's .NET platform images up to date."""

__version__ = "0.1.0"
