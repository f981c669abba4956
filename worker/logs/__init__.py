"""Structured logs: set up, formatted, masked, written without blocking the loop."""
