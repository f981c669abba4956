"""Which charset a body's text is read in, and what is no text."""

import codecs

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from connectors.sdk.http.charset import decode_text

TEXT = "Çağrı ışık"
DECLARATION = '<?xml version="1.0" encoding="{}"?>'


@pytest.mark.parametrize(
    ("content", "content_type"),
    [
        (TEXT.encode(), "text/plain"),
        (TEXT.encode("utf-8-sig"), "text/plain"),
        (TEXT.encode("utf-16"), "text/plain; charset=iso-8859-1"),
        (codecs.BOM_UTF16_BE + TEXT.encode("utf-16-be"), "text/plain"),
        (TEXT.encode("utf-32"), "text/plain"),
        (TEXT.encode("iso8859-9"), "text/plain; charset=ISO-8859-9"),
        (TEXT.encode("cp1254"), 'text/plain; charset="windows-1254"'),
        (TEXT.encode("utf-16-le"), "text/plain; charset=utf-16le"),
        (TEXT.encode(), "text/plain; charset=none"),
    ],
)
def test_text_is_read_by_its_mark_then_by_its_header(content: bytes, content_type: str) -> None:
    assert TEXT == decode_text(content, content_type)


@pytest.mark.parametrize("name", ["iso8859-9", "windows-1254", "UTF-8"])
@pytest.mark.parametrize("content_type", ["application/xml", "text/xml", "application/soap+xml"])
def test_xml_is_read_by_its_declaration(name: str, content_type: str) -> None:
    text = DECLARATION.format(name) + TEXT

    assert text == decode_text(text.encode(name), content_type)


def test_a_declaration_is_for_xml_without_a_charset_alone() -> None:
    content = (DECLARATION.format("iso-8859-9") + TEXT).encode()

    assert (DECLARATION.format("iso-8859-9") + TEXT) == decode_text(content, "text/xml; charset=utf-8")
    assert (DECLARATION.format("iso-8859-9") + TEXT) == decode_text(content, "text/html")


def test_xml_in_utf_16_without_a_mark_is_read() -> None:
    text = DECLARATION.format("UTF-16") + TEXT

    assert text == decode_text(text.encode("utf-16-be"), "application/xml")


@given(content=st.binary(max_size=64))
@settings(max_examples=100, deadline=None)
def test_no_text_has_a_replacement_character_of_ours(content: bytes) -> None:
    assume(not content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE, codecs.BOM_UTF32_BE)))

    text = decode_text(content, "text/plain; charset=utf-8")

    assert text is None or text.encode() == content.removeprefix(codecs.BOM_UTF8)
