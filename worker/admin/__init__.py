"""Operator commands on a broker: dead letters and queues."""
