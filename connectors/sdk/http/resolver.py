"""DNS that answers with checked addresses only."""

import asyncio
import socket
from collections.abc import Awaitable, Callable, Collection
from concurrent.futures import ThreadPoolExecutor
from ipaddress import ip_address
from typing import Final

from aiohttp.abc import AbstractResolver, ResolveResult

from connectors.sdk.http.address import check_address, reach_of
from connectors.sdk.http.egress import Egress

#: Resolve a name to addresses; raises OSError if there is none. Blocks nothing.
Lookup = Callable[[str, int], Awaitable[Collection[str]]]

#: Seconds for one DNS question; getaddrinfo itself cannot be stopped.
LOOKUP_TIMEOUT_S: Final = 5.0
#: Threads for DNS alone: when it hangs, no other part of the worker waits behind it.
LOOKUP_THREADS: Final = 16


class GuardedResolver(AbstractResolver):
    """Resolve a name once and check every address, so that the one connected to has been checked.

    Args:
        egress: what may have addresses inside.
        lookup: asks DNS; the system's resolver if None.
    """

    def __init__(self, egress: Egress, lookup: Lookup | None = None) -> None:
        self._egress = egress
        self._threads: ThreadPoolExecutor | None = None
        self._lookup = lookup or self._ask_system

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_UNSPEC
    ) -> list[ResolveResult]:
        """Return the addresses of a host, each one allowed for it.

        Raises:
            RefusedAddress: one of them is not.
            OSError: there is none, or DNS did not answer in time.
        """
        reach = reach_of(host, self._egress)
        try:
            async with asyncio.timeout(LOOKUP_TIMEOUT_S):
                # A zone (`fe80::1%eth0`) is dropped: such an address is refused with or without it.
                found = [ip_address(text.partition("%")[0]) for text in await self._lookup(host, port)]
        except TimeoutError:
            raise OSError("DNS did not answer in time") from None
        if not found:
            raise OSError("DNS knows no address")
        for address in found:
            check_address(address, reach)
        return [
            ResolveResult(
                hostname=host,
                host=str(address),
                port=port,
                family=socket.AF_INET if address.version == 4 else socket.AF_INET6,
                proto=socket.IPPROTO_TCP,
                flags=socket.AI_NUMERICHOST | socket.AI_NUMERICSERV,
            )
            for address in found
        ]

    async def close(self) -> None:
        """Release the threads; a question that hangs ends by itself."""
        if self._threads is not None:
            self._threads.shutdown(wait=False, cancel_futures=True)

    async def _ask_system(self, host: str, port: int) -> Collection[str]:
        if self._threads is None:
            self._threads = ThreadPoolExecutor(LOOKUP_THREADS, thread_name_prefix="connectors-dns")
        infos = await asyncio.get_running_loop().run_in_executor(
            self._threads, lambda: socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
        )
        return [str(info[4][0]) for info in infos]
