"""The real core in a simulated world: `python -m tests.simulation`; what it is made of is in `tests/README.md`."""
