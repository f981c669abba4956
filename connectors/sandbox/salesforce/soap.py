"""The sandbox's SOAP API: it converts leads, which the REST API cannot."""

from xml.etree import ElementTree as ET
from xml.sax.saxutils import escape

from aiohttp import web

from connectors.sandbox.salesforce.faults import Refusal
from connectors.sandbox.salesforce.oauth import Authority
from connectors.sandbox.salesforce.store import Store

_NS = {"e": "http://schemas.xmlsoap.org/soap/envelope/", "s": "urn:partner.soap.sforce.com"}
_ANSWER = (
    '<?xml version="1.0" encoding="UTF-8"?><soapenv:Envelope '
    'xmlns:soapenv="http://schemas.xmlsoap.org/soap/envelope/" xmlns="urn:partner.soap.sforce.com" '
    'xmlns:sf="urn:fault.partner.soap.sforce.com"><soapenv:Body>{body}</soapenv:Body></soapenv:Envelope>'
)


def answer_soap(store: Store, authority: Authority, body: bytes) -> web.Response:
    """Return the answer to a convertLead call; a fault has the status 500."""
    try:
        root = ET.fromstring(body)  # noqa: S314  # our own tests write it
        authority.check(f"Bearer {root.findtext('.//s:sessionId', '', _NS)}")
        call = root.find("e:Body/s:convertLead/s:leadConverts", _NS)
        if call is None:
            raise Refusal(500, "UNKNOWN_EXCEPTION", "Destination URL not reset or call unknown")
    except ET.ParseError:
        return _fault(Refusal(500, "MALFORMED_REQUEST", "not XML"))
    except Refusal as refusal:
        return _fault(refusal)
    values = {child.tag.rpartition("}")[2]: child.text or "" for child in call}
    try:
        made = store.convert_lead(values, allow_duplicates=root.findtext(".//s:allowSave", "", _NS) == "true")
        parts = {**made, "leadId": values["leadId"], "success": "true"}
        result = "".join(f"<{name}>{escape(value)}</{name}>" for name, value in parts.items())
    except Refusal as refusal:
        fields = "".join(f"<fields>{escape(name)}</fields>" for name in refusal.fields or ())
        error = f"{fields}<message>{escape(refusal.message)}</message><statusCode>{refusal.code}</statusCode>"
        result = f"<errors>{error}</errors><leadId>{escape(values.get('leadId', ''))}</leadId><success>false</success>"
    return _answer(f"<convertLeadResponse><result>{result}</result></convertLeadResponse>", 200)


def _fault(refusal: Refusal) -> web.Response:
    code = refusal.code
    text = f"<faultcode>sf:{code}</faultcode><faultstring>{code}: {escape(refusal.message)}</faultstring>"
    return _answer(f"<soapenv:Fault>{text}</soapenv:Fault>", 500)


def _answer(body: str, status: int) -> web.Response:
    return web.Response(text=_ANSWER.format(body=body), status=status, content_type="text/xml")
