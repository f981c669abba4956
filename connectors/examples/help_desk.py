"""A fake of the worked example's help desk: tickets, pages, and rotated refresh tokens."""

from typing import Any

from connectors.sdk.testing import Answer, Asked, FakeProvider

SECRET = "client-secret-of-the-example"
PAGE = 2


class HelpDesk(FakeProvider):
    """Tickets by number, and the newest access token."""

    def __init__(self) -> None:
        super().__init__()
        self.tickets: dict[str, dict[str, str]] = {}
        self.refresh_token = "refresh-token-0"
        self.access_token = ""
        for subject in ("No dial tone", "Echo on the line", "Voicemail is full"):
            self._add({"subject": subject, "caller": "+900000", "reference": ""})
        self.on("POST", "/token", self._token)
        self.on("GET", "/tickets", self._guarded(self._list))
        self.on("POST", "/tickets", self._guarded(lambda asked: self._add(asked.json())))
        self.on("GET", "/tickets/by-reference/{reference}", self._guarded(self._by_reference))
        self.on("PUT", "/tickets/{id}/state", self._guarded(self._close))

    def secret(self, url: str = "") -> dict[str, str]:
        """The secret that authenticates a connector."""
        return {
            "base_url": url or self.url,
            "grant": "refresh_token",
            "token_url": f"{url or self.url}/token",
            "client_id": "the-example",
            "client_secret": SECRET,
            "refresh_token": self.refresh_token,
        }

    def _guarded(self, handler: Any) -> Any:
        def guard(asked: Asked) -> Any:
            if asked.headers.get("authorization") != f"Bearer {self.access_token}":
                return Answer({"error": "who are you?"}, status=401)
            return handler(asked)

        return guard

    def _token(self, asked: Asked) -> Answer:
        if f"refresh_token={self.refresh_token}".encode() not in asked.body:
            return Answer({"error": "invalid_grant"}, status=400)
        number = int(self.refresh_token.rpartition("-")[2]) + 1
        self.refresh_token = f"refresh-token-{number}"
        self.access_token = f"access-token-{number}"
        return Answer(
            {"access_token": self.access_token, "refresh_token": self.refresh_token, "expires_in": 3600}
        )

    def _add(self, fields: dict[str, str]) -> dict[str, str]:
        number = str(len(self.tickets) + 1)
        self.tickets[number] = {"id": number, **fields, "state": "open"}
        return self.tickets[number]

    def _list(self, asked: Asked) -> Any:
        start = int(asked.query["after"] or 0)
        found = list(self.tickets.values())
        more = str(start + PAGE) if start + PAGE < len(found) else None
        return {"tickets": found[start : start + PAGE], "next": more}

    def _by_reference(self, asked: Asked) -> Any:
        found = [each for each in self.tickets.values() if each["reference"] == asked.names["reference"]]
        return found[0] if found else Answer({"error": "there is none"}, status=404)

    def _close(self, asked: Asked) -> Any:
        ticket = self.tickets.get(asked.names["id"])
        if ticket is None:
            return Answer({"error": "there is none"}, status=404)
        ticket["state"] = "closed"
        return ticket
