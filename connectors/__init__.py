"""What runs: the connectors and the SDK they are written with."""
