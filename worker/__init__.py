"""The worker: receives jobs from RabbitMQ, runs them with connectors, sends replies."""
