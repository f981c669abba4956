"""Local servers that speak a provider's API well enough to develop, demo and test against."""
