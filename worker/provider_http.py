"""How providers are called: the same for a worker's jobs and for the check of a credential."""

from typing import TYPE_CHECKING

from worker.settings import Settings

if TYPE_CHECKING:
    from connectors.sdk.http.client import HttpPolicy


def http_policy(settings: Settings) -> "HttpPolicy":
    """Return the part of the settings that calls to providers obey."""
    from connectors.sdk.http.client import HttpPolicy  # noqa: PLC0415  # 15 MB, for who calls

    return HttpPolicy(
        allow_plaintext_hosts=settings.plaintext_hosts,
        ca_file=settings.ca_file,
        proxy_url=None if settings.proxy_url is None else settings.proxy_url.get_secret_value(),
    )
