"""The day that it is for an org: its dates are days in its own time zone."""

import time
from collections import OrderedDict
from collections.abc import Callable, Hashable
from datetime import UTC, date, datetime, tzinfo
from typing import Final
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from connectors.salesforce.client import SalesforceApi
from connectors.salesforce.query_rows import query_rows
from connectors.sdk.errors import ConnectorError, InvalidParams

#: Seconds for which an org's zone is used: it hardly ever changes.
TTL_S: Final = 86_400.0
#: Most zones kept; the least recently used is evicted first.
MAX_KEPT: Final = 1000

_SOQL: Final = "SELECT TimeZoneSidKey FROM Organization LIMIT 1"


class OrgZones:
    """Time zones by org."""

    def __init__(
        self,
        *,
        clock: Callable[[], float] = time.monotonic,
        now: Callable[[tzinfo], datetime] = datetime.now,
        max_kept: int = MAX_KEPT,
    ) -> None:
        self._clock = clock
        self._now = now
        self._max_kept = max_kept
        self._kept: OrderedDict[Hashable, tuple[tzinfo, float]] = OrderedDict()

    async def today(self, api: SalesforceApi, time_zone: str | None) -> date:
        """Return today's date in a zone that the job names, or else in the org's."""
        zone = await self._of(api) if time_zone is None else zone_named(time_zone)
        return self._now(zone).date()

    async def _of(self, api: SalesforceApi) -> tzinfo:
        held = self._kept.get(api.account)
        if held is None or self._clock() - held[1] >= TTL_S:
            held = self._kept[api.account] = await _fetch(api), self._clock()
            if len(self._kept) > self._max_kept:
                self._kept.popitem(last=False)
        self._kept.move_to_end(api.account)
        return held[0]


def zone_named(time_zone: str) -> tzinfo:
    """Return a zone by its IANA name.

    Raises:
        InvalidParams: there is none of this name.
    """
    try:
        return ZoneInfo(time_zone)
    except (ZoneInfoNotFoundError, ValueError, OSError):
        raise InvalidParams.field("time_zone", "must be a time zone such as Europe/Istanbul") from None


async def _fetch(api: SalesforceApi) -> tzinfo:
    """Return the org's zone; UTC if the org does not show it to this user."""
    try:
        rows = await query_rows(api, _SOQL, limit=1)
        return zone_named(str(rows.records[0]["TimeZoneSidKey"]))
    except ConnectorError as refused:
        if refused.code.facts.retryable:
            raise
        return UTC
    except LookupError:
        return UTC


org_zones: Final = OrgZones()
