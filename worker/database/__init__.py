"""The database that the ledger and the table of credentials lie in."""
