"""The test kit: one action run as a worker runs it, without a worker, a broker or a vault.

ran = await run(acme, find_contact, {"email": "ada@example.com"}, credential=document)
assert ran.data == {"id": "17"}

run, Kit, Ran              one action, with real validation, effects, retry decisions and masking
FakeProvider, Asked, Answer   the other system: scripted HTTP with a journal
Fault, FaultProxy          what can go wrong between the two: cut, hung, refused, garbled
FakeClock                  time that waits are skipped in
ConnectorContract          what every connector must pass; subclass it
Via                        how its credential leads through the proxy that fails on demand
"""

from connectors.sdk.testing.clock import FakeClock
from connectors.sdk.testing.contract import ConnectorContract, Via
from connectors.sdk.testing.fault_proxy import Fault, FaultProxy
from connectors.sdk.testing.kit import Kit, run
from connectors.sdk.testing.provider import Answer, Asked, FakeProvider
from connectors.sdk.testing.ran import Ran

__all__ = [
    "Answer",
    "Asked",
    "ConnectorContract",
    "FakeClock",
    "FakeProvider",
    "Fault",
    "FaultProxy",
    "Kit",
    "Ran",
    "Via",
    "run",
]
