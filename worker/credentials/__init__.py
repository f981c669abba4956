"""Secrets by name: the source that actions read from, its cache, and the Vault client."""
