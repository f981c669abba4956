"""What an operator does: dead letters and queues."""
