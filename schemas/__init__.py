"""The wire: what publishers, workers and connectors agree on."""
