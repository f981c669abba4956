"""A local server that speaks the Salesforce REST API."""
