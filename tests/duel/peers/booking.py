"""What every peer's task does: one request, and with `DUEL_LOOKS_UP` a look before it, written by hand."""

import os
import ssl

import httpx

URL = os.environ.get("BOOKINGS_URL", "")
TIMEOUT_S = float(os.environ.get("BOOKINGS_TIMEOUT_S", "10"))
#: Made once, because it is dear to make.
TRUST = ssl.create_default_context()
LOOKS_UP = bool(os.environ.get("DUEL_LOOKS_UP"))


async def book(reference: str) -> str:
    """Book once; an answer that does not come is an error."""
    async with httpx.AsyncClient(base_url=URL, timeout=TIMEOUT_S, verify=TRUST, trust_env=False) as client:
        if LOOKS_UP:
            found = await client.get("/bookings", params={"reference": reference})
            if found.raise_for_status().json()["bookings"]:
                return reference
        (await client.post("/bookings", json={"reference": reference})).raise_for_status()
    return reference
