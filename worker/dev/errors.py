"""What can go wrong with private infrastructure.

InfrastructureError      one line for the person who started it
├── NotInstalled         the programs are neither here nor to be had; says what to install
├── StartFailed          the program was started and did not become ready; ends in the tail of its log
└── CommandFailed        a command ended with an error, or did not end in its time
"""


class InfrastructureError(Exception):
    """Private infrastructure cannot do what it was asked for."""


class NotInstalled(InfrastructureError):
    """The programs are neither installed nor to be had without root."""


class StartFailed(InfrastructureError):
    """The program was started and did not become ready in its time."""


class CommandFailed(InfrastructureError):
    """A command ended with an error, or did not end in its time."""
