"""How it runs: jobs from RabbitMQ, run by connectors, answered."""
