"""The SOAP API, for the one thing that the REST API cannot do: convert a lead."""

from collections.abc import Mapping
from xml.etree import ElementTree as ET
from xml.sax.saxutils import escape

from connectors.sdk.errors import Sent, Unavailable

_ENVELOPE = (
    '<?xml version="1.0" encoding="utf-8"?>'
    '<e:Envelope xmlns:e="http://schemas.xmlsoap.org/soap/envelope/" xmlns="urn:partner.soap.sforce.com">'
    "<e:Header><SessionHeader><sessionId>{session}</sessionId></SessionHeader>{headers}</e:Header>"
    "<e:Body>{body}</e:Body></e:Envelope>"
)

#: Values by element name, in the order of the WSDL; None leaves an element out.
Elements = Mapping[str, str | bool | None]


def envelope(session: str, call: str, item: str, elements: Elements, *, allow_duplicates: bool) -> bytes:
    """Return the request of a call with one item."""
    inner = "".join(
        f"<{name}>{_text(value)}</{name}>" for name, value in elements.items() if value is not None
    )
    headers = (
        "<DuplicateRuleHeader><allowSave>true</allowSave></DuplicateRuleHeader>" if allow_duplicates else ""
    )
    body = f"<{call}><{item}>{inner}</{item}></{call}>"
    return _ENVELOPE.format(session=escape(session), headers=headers, body=body).encode()


def read(content: bytes) -> ET.Element:
    """Return the first element of an answer's body: the response, or a fault.

    Raises:
        Unavailable: the answer is not SOAP.
    """
    try:
        if b"<!DOCTYPE" in content:
            raise ET.ParseError  # an entity could grow without bounds
        root = ET.fromstring(content)  # noqa: S314  # without a DOCTYPE there are no entities
    except ET.ParseError:
        root = None
    body = None if root is None else next((each for each in root if local_name(each) == "Body"), None)
    if body is None or len(body) == 0:
        raise Unavailable("Salesforce did not return a SOAP answer", sent=Sent.UNCERTAIN)
    return body[0]


def texts(element: ET.Element) -> dict[str, str]:
    """Return the texts of an element's children, by their names; the first of each."""
    return {local_name(child): child.text or "" for child in reversed(element)}


def local_name(element: ET.Element) -> str:
    """Return an element's name without its namespace."""
    return element.tag.rpartition("}")[2]


def fault_of(element: ET.Element) -> dict[str, str] | None:
    """Return a fault as the REST API writes it; None if the element is a response."""
    if local_name(element) != "Fault":
        return None
    parts = texts(element)
    return {
        "errorCode": parts.get("faultcode", "").rpartition(":")[2],
        "message": parts.get("faultstring", ""),
    }


def _text(value: str | bool) -> str:
    return str(value).lower() if isinstance(value, bool) else escape(value)
