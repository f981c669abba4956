"""The outbound HTTP layer that every connector shares."""
