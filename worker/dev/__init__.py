"""Private infrastructure for development, demo and tests."""
