"""How providers are called: the same for a worker's jobs and for the check of a credential."""

from connectors.sdk.http.policy import HttpPolicy
from worker.settings import Settings


def http_policy(settings: Settings) -> HttpPolicy:
    """Return the part of the settings that calls to providers obey."""
    return HttpPolicy(
        egress=settings.egress,
        ca_file=settings.ca_file,
        proxy_url=None if settings.proxy_url is None else settings.proxy_url.get_secret_value(),
    )
