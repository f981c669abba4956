"""The effect of an action: the one fact that decides whether it may run again."""

from enum import StrEnum


class Effect(StrEnum):
    """What happens if the same job runs twice: READ is safe, KEYED idempotent, WRITE not idempotent.

    The declared effect drives the worker: after a crash, a timeout or a broken connection a READ
    is simply run again; a KEYED action is run again with the same key; a WRITE is never repeated
    blindly, it is looked up by its `reconcile` or dead-lettered as OUTCOME_UNKNOWN.
    """

    #: It changes nothing: run it as often as you like.
    READ = "read"
    #: It changes something, and a second run with the same key (or absolute values) changes nothing more.
    KEYED = "keyed"
    #: It changes something each time it runs.
    WRITE = "write"
