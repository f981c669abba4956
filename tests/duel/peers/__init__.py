"""The peers, each set up as its documentation advises. They run in an environment of their own."""
