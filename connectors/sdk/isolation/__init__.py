"""Connectors in processes of their own: what hangs, crashes or blocks its loop there harms no other connector.

frames             what the two sides say to each other: JSON with a length before it, never pickle
plan               what such a process is told before its first call
child              the process that runs one connector's actions
isolated_process   the worker's end of one such process
reports            its log lines, metrics and refresh tokens
processes          which process runs a call; they are bounded, started lazily, and replaced
"""
