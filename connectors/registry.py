"""Finding connectors: entry points in the group `connectors`, ours like everyone else's."""

import threading
from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from importlib.metadata import EntryPoint, entry_points
from types import MappingProxyType
from typing import Any, Final

from connectors.sdk.connector import Action, Connector, Isolation

#: The entry point group.
GROUP: Final = "connectors"
#: The distribution whose connectors are ours.
OURS: Final = "connectors-service"
#: Seconds that a connector's import may take. The slowest of ours takes one.
IMPORT_S: Final = 30.0


@dataclass(frozen=True, slots=True)
class Installed:
    """A connector that some installed distribution offers."""

    name: str
    #: As people write it: `acme-crm 1.2`.
    distribution: str
    version: str
    connector: Connector | None = None
    #: Where its connector is found: `acme_crm:connector`; empty if it was given by hand.
    reference: str = ""
    #: Why it cannot run; None if it can.
    fault: str | None = None

    def isolation_of(self, action: Action[..., Any]) -> Isolation:
        """Return where an action runs: as its connector says, or synchronous ones of third parties by themselves."""
        if self.connector is not None and self.connector.isolation is not None:
            return self.connector.isolation
        is_ours = self.distribution == OURS or not self.reference
        return "worker" if is_ours or action.is_async else "process"


@dataclass(frozen=True, slots=True)
class Registry:
    """The connectors of this process, loaded once."""

    installed: Mapping[str, Installed] = field(default_factory=dict)

    @property
    def connectors(self) -> Mapping[str, Connector]:
        """Those that loaded, by name."""
        return MappingProxyType(
            {name: entry.connector for name, entry in self.installed.items() if entry.connector}
        )

    @property
    def broken(self) -> Mapping[str, str]:
        """Those that did not, by name, with the reason in one line."""
        return MappingProxyType({name: entry.fault for name, entry in self.installed.items() if entry.fault})

    @classmethod
    def of(cls, *connectors: Connector) -> "Registry":
        """Create one by hand, as tests do."""
        return cls({each.name: Installed(each.name, "(given)", "", each) for each in connectors})


def load(names: Collection[str] | None = None, *, import_s: float = IMPORT_S) -> Registry:
    """Load the connectors named, or every one that is installed.

    Only what is named is imported. One that fails to import or does not finish in `import_s` seconds,
    or a name that two distributions claim, is kept with its fault; the others run.
    """
    offers: defaultdict[str, list[EntryPoint]] = defaultdict(list)
    for offer in _distinct(entry_points(group=GROUP)):
        offers[offer.name].append(offer)
    chosen = sorted(offers) if names is None else [name for name in names if name in offers]
    return Registry({name: _load_one(name, offers[name], import_s) for name in chosen})


def installed_names() -> frozenset[str]:
    """Name every connector that is installed, loading none."""
    return frozenset(offer.name for offer in entry_points(group=GROUP))


def _distinct(offers: Iterable[EntryPoint]) -> list[EntryPoint]:
    # One distribution seen twice on sys.path (an editable install beside its wheel) is no rivalry.
    return list({(offer.name, offer.value, _origin(offer)): offer for offer in offers}.values())


def _origin(offer: EntryPoint) -> tuple[str, str]:
    return (offer.dist.name, offer.dist.version) if offer.dist else ("(unknown)", "")


def _load_one(name: str, offers: list[EntryPoint], import_s: float) -> Installed:
    origins = [" ".join(_origin(offer)).strip() for offer in offers]
    distribution, version = _origin(offers[0])
    if len(offers) > 1:
        fault = f"connector {name!r} is registered twice: {' and '.join(origins)}; uninstall one"
        return Installed(name, ", ".join(origins), "", fault=fault)
    importing = _Import(offers[0])
    importing.join(import_s)
    if importing.is_alive():
        fault = (
            f"connector {name!r} of {origins[0]} is still importing after {import_s:g} s; it is left alone"
        )
        return Installed(name, distribution, version, fault=fault)
    if (error := importing.error) is not None:
        reason = " ".join(str(error).split())[:200]
        fault = f"connector {name!r} of {origins[0]} fails to import: {type(error).__name__}: {reason}"
        return Installed(name, distribution, version, fault=fault)
    loaded = importing.loaded
    if not isinstance(loaded, Connector):
        fault = f"connector {name!r} of {origins[0]}: {offers[0].value} is no Connector"
        return Installed(name, distribution, version, fault=fault)
    if loaded.name != name:
        fault = f"connector {name!r} of {origins[0]} calls itself {loaded.name!r}; the names must agree"
        return Installed(name, distribution, version, fault=fault)
    return Installed(name, distribution, version, loaded, offers[0].value)


class _Import(threading.Thread):
    """One import, in a thread that is not waited for at exit: a plugin may hang, or raise anything."""

    def __init__(self, offer: EntryPoint) -> None:
        super().__init__(name=f"import {offer.name}", daemon=True)
        self._offer = offer
        self.loaded: object = None
        self.error: BaseException | None = None
        self.start()

    def run(self) -> None:
        """Import; SystemExit is a failure like another."""
        try:
            self.loaded = self._offer.load()
        except BaseException as error:  # told by the thread that waits
            self.error = error
