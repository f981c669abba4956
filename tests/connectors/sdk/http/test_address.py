"""What may be called, by spelling and by address."""

from ipaddress import ip_address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from connectors.sdk.http.address import (
    Reach,
    RefusedAddress,
    check_address,
    check_target,
    reach_of,
    read_host,
    read_url,
)
from connectors.sdk.http.egress import NOTHING_INSIDE, THIS_MACHINE, Egress

REFUSED_SPELLINGS = [
    "",
    "file:///etc/passwd",
    "gopher://127.0.0.1:11211/_stats",
    "ftp://example.com/",
    "data:text/plain,hi",
    "javascript:alert(1)",
    "example.com/no-scheme",
    "//example.com/",
    "http:example.com",
    "http:///path",
    "https://",
    "https://user@example.com/",
    "https://user:password@example.com/",
    "https://example.com@127.0.0.1/",
    "http://169.254.169.254\\@example.com/",
    "https:\\\\example.com/",
    "http://127.1/",
    "http://2130706433/",
    "http://0x7f000001/",
    "http://0x7f.0.0.1/",
    "http://017700000001/",
    "http://0177.0.0.1/",
    "http://127.0.0.01/",
    "http://0/",
    "http://1.2.3.4.5/",
    "http://256.1.1.1/",
    "https://example.com./",
    "https://127.0.0.1./",
    "https://.example.com/",
    "https://exa..mple.com/",
    "https://-example.com/",
    "https://exämple.com/",
    "https://аpple.com/",
    "https://１２７.0.0.1/",
    "https://xn--a/",
    "https://xn--ls8h.example/",
    "https://example.com:0/",
    "https://example.com:22/",
    "https://example.com:25/",
    "https://example.com:65536/",
    "https://example.com:99999999/",
    "https://example.com:-1/",
    "https://example.com:8 0/",
    "https://[::1/",
    "https://[::1]x/",
    "https://[127.0.0.1]/",
    "https://[fe80::1%25eth0]/",
    "https://[v1.fe80::a]/",
    "https://example.com/a b",
    "https://example.com/a\r\nHost: evil",
    "https://example.com/\x00",
    "https://example.com/ü",
    "https://example.com/100%",
    "https://example.com/%zz",
    "https://example.com/" + "a" * 17_000,
    "https://" + "a" * 254 + ".com/",
    "https://" + "a" * 64 + ".com/",
    "\thttps://example.com/",
    "https://example.com\t/",
]

REFUSED_LITERALS = [
    "0.0.0.0",
    "10.0.0.1",
    "100.64.0.1",
    "100.100.100.200",
    "127.0.0.1",
    "127.255.255.254",
    "168.63.129.16",
    "169.254.169.254",
    "172.16.0.1",
    "172.31.255.255",
    "192.0.0.192",
    "192.0.2.1",
    "192.88.99.1",
    "192.168.1.1",
    "198.18.0.1",
    "198.51.100.1",
    "203.0.113.1",
    "224.0.0.1",
    "239.255.255.255",
    "240.0.0.1",
    "255.255.255.255",
    "[::]",
    "[::1]",
    "[::127.0.0.1]",
    "[::ffff:127.0.0.1]",
    "[::ffff:169.254.169.254]",
    "[::ffff:8.8.8.8]",
    "[64:ff9b::127.0.0.1]",
    "[64:ff9b::a9fe:a9fe]",
    "[64:ff9b:1::1]",
    "[100::1]",
    "[2001::1]",
    "[2001:db8::1]",
    "[2002:7f00:1::]",
    "[3fff::1]",
    "[5f00::1]",
    "[fc00::1]",
    "[fd00:ec2::254]",
    "[fe80::1]",
    "[fec0::1]",
    "[ff02::1]",
]


@pytest.mark.parametrize("url", REFUSED_SPELLINGS)
def test_spellings_that_could_hide_a_host_are_refused(url: str) -> None:
    with pytest.raises(RefusedAddress):
        read_url(url)


@pytest.mark.parametrize("host", REFUSED_LITERALS)
def test_addresses_that_are_not_public_are_refused_for_anybody(host: str) -> None:
    with pytest.raises(RefusedAddress):
        check_target(read_url(f"https://{host}/"), is_named=False, egress=THIS_MACHINE)


@pytest.mark.parametrize("host", sorted(set(REFUSED_LITERALS) - {"127.0.0.1", "127.255.255.254", "[::1]"}))
def test_a_credential_opens_loopback_and_nothing_else(host: str) -> None:
    with pytest.raises(RefusedAddress):
        check_target(read_url(f"https://{host}/"), is_named=True, egress=NOTHING_INSIDE)


@pytest.mark.parametrize("host", ["127.0.0.1", "127.255.255.254", "[::1]", "localhost", "api.localhost"])
def test_loopback_takes_plain_http_where_it_is_named(host: str) -> None:
    target = read_url(f"http://{host}:8080/x")

    assert Reach.LOOPBACK is check_target(target, is_named=True, egress=THIS_MACHINE)
    for is_named, egress in ((False, THIS_MACHINE), (True, NOTHING_INSIDE)):
        with pytest.raises(RefusedAddress):
            check_target(target, is_named=is_named, egress=egress)


def test_an_internal_service_needs_the_setting_and_a_name_in_a_credential() -> None:
    target = read_url("http://crm:8080/x")

    assert Reach.INTERNAL is check_target(target, is_named=True, egress=Egress.of(["crm"]))
    with pytest.raises(RefusedAddress, match="leads inside"):
        check_target(target, is_named=False, egress=Egress.of(["crm"]))
    with pytest.raises(RefusedAddress, match="plain http"):
        check_target(target, is_named=True, egress=NOTHING_INSIDE)


@pytest.mark.parametrize("address", ["10.1.2.3", "127.0.0.1", "fd12::1", "100.64.1.1", "93.184.216.34"])
def test_an_internal_service_may_have_private_addresses(address: str) -> None:
    check_address(ip_address(address), Reach.INTERNAL)


@pytest.mark.parametrize(
    "address", ["169.254.169.254", "fd00:ec2::254", "100.100.100.200", "fe80::1", "0.0.0.0"]
)
def test_metadata_and_link_local_are_refused_even_inside(address: str) -> None:
    with pytest.raises(RefusedAddress):
        check_address(ip_address(address), Reach.INTERNAL)


@pytest.mark.parametrize("address", ["8.8.8.8", "93.184.216.34", "2606:4700::1111", "64:ff9b::8.8.8.8"])
def test_public_addresses_pass_the_one_behind_dns64_too(address: str) -> None:
    check_address(ip_address(address), Reach.PUBLIC)


def test_loopback_by_name_must_lead_to_loopback() -> None:
    with pytest.raises(RefusedAddress):
        check_address(ip_address("8.8.8.8"), Reach.LOOPBACK)


def test_plain_http_to_a_public_host_in_a_credential_is_refused() -> None:
    with pytest.raises(RefusedAddress, match="plain http"):
        check_target(read_url("http://api.example.com/"), is_named=True, egress=NOTHING_INSIDE)


@pytest.mark.parametrize(
    ("url", "read"),
    [
        ("HTTPS://API.Example.COM", "https://api.example.com/"),
        ("https://api.example.com:443/a?b=c#d", "https://api.example.com/a?b=c"),
        ("https://xn--bcher-kva.example/", "https://xn--bcher-kva.example/"),
        ("https://[2606:4700:0::1111]:8443/", "https://[2606:4700::1111]:8443/"),
        ("https://my_service.example/%2F%20", "https://my_service.example/%2F%20"),
        ("http://127.0.0.1:80/", "http://127.0.0.1/"),
    ],
)
def test_urls_are_read_into_one_spelling(url: str, read: str) -> None:
    assert read == read_url(url).url


@pytest.mark.parametrize(
    ("text", "read"),
    [
        ("API.example.com", "api.example.com"),
        (" api.example.com:8443 ", "api.example.com:8443"),
        ("[::1]", "::1"),
        ("[::1]:80", "[::1]:80"),
    ],
)
def test_allowed_hosts_are_read_as_targets_spell_them(text: str, read: str) -> None:
    assert read == read_host(text)


@pytest.mark.parametrize(
    "text", ["", "https://api.example.com", "a/b", "user@host", "host:", "*.example.com"]
)
def test_what_is_no_host_is_refused_as_one(text: str) -> None:
    with pytest.raises(RefusedAddress):
        read_host(text)


@given(st.text(max_size=60))
def test_any_text_is_read_or_refused(text: str) -> None:
    for url in (text, f"https://{text}", f"https://example.com/{text}"):
        try:
            target = read_url(url)
        except RefusedAddress:
            continue
        assert target == read_url(target.url)


@given(st.ip_addresses())
def test_no_address_is_public_that_python_calls_private(address: object) -> None:
    address = ip_address(str(address))
    try:
        check_address(address, Reach.PUBLIC)
    except RefusedAddress:
        return
    assert address.is_global
    assert not address.is_multicast


def test_the_reach_of_a_name_is_its_spelling_alone() -> None:
    assert Reach.PUBLIC is reach_of("rebinding.example.com", egress=THIS_MACHINE)
    assert Reach.PUBLIC is reach_of("notlocalhost", egress=THIS_MACHINE)
    assert Reach.LOOPBACK is reach_of("localhost", egress=THIS_MACHINE)
    assert Reach.INTERNAL is reach_of("localhost", egress=Egress(frozenset({"localhost"})))
