"""The peers' workers, each set up as its documentation advises; run by the Python of `.venv-bench`."""
