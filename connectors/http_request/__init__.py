"""The connector `http`: any HTTP API, within what one credential allows."""

from connectors.http_request.action import effect_of, http, request
from connectors.http_request.answer import HttpResult
from connectors.http_request.credential import HttpCredential
from connectors.http_request.params import RequestParams

__all__ = ["HttpCredential", "HttpResult", "RequestParams", "effect_of", "http", "request"]
