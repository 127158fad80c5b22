"""Where a webhook may go, and every way we know of to go elsewhere."""

import ipaddress

import pytest

from jobstore.destinations import Destinations, Forbidden

ANY = Destinations([], [])


@pytest.mark.parametrize(
    "url",
    [
        "https://hooks.example.com/atmc",
        "https://hooks.example.com:8443/a?b=c%20d",
        "http://example.com",
        "https://8.8.8.8/x",
        "https://[2606:4700:4700::1111]/",
        "https://xn--bcher-kva.example/",
        "https://a_b.example.com./",
    ],
)
def test_a_public_url_is_allowed(url: str) -> None:
    assert ANY.check_url(url).scheme in ("http", "https")


@pytest.mark.parametrize(
    "url",
    [
        "",
        "example.com",
        "//example.com",
        "ftp://example.com",
        "file:///etc/passwd",
        "gopher://example.com/_x",
        "https://",
        "https:///path",
        "https://user:pass@example.com/",
        "https://example.com@127.0.0.1/",
        "https://@example.com/",
        "https://example.com#@127.0.0.1/",
        "https://example.com#",
        "https://127.0.0.1\\@example.com/",
        "https://example.com\\.evil.example/",
        "https://exa mple.com/",
        "https://example.com/\r\nHost: evil",
        "https://example.com/\t",
        "https://example.com\0.evil.example/",
        "https://exämple.com/",
        "https://①②⑦.⓪.⓪.①/",
        "https://example.com:0/",
        "https://example.com:99999/",
        "https://example.com:x/",
        "https://" + "a" * 64 + ".com/",
        "https://example.com/" + "a" * 2000,
        "https://-example-/",
        "https://exa%6dple.com/",
        "https://127.0.0.1%2f.example.com/",
        # Numbers that the C library reads as 127.0.0.1, or as 169.254.169.254.
        "http://2130706433/",
        "http://0x7f000001/",
        "http://0x7f.0.0.1/",
        "http://017700000001/",
        "http://0177.0.0.1/",
        "http://127.1/",
        "http://127.0.1/",
        "http://127.0.0.1./",
        "http://0/",
        "http://2852039166/",
        "http://0xA9FEA9FE/",
        "http://169.254.43518/",
        "http://1.2.3.4.5/",
        "http://0127.0.0.1/",
        "http://example.0x7f/",
        "https://[::1",
        "https://[::1]extra/",
        "https://[v1.a]/",
    ],
)
def test_a_url_that_parsers_may_read_differently_is_refused(url: str) -> None:
    with pytest.raises(Forbidden):
        ANY.check_url(url)


ELSEWHERE = [
    "127.0.0.1",
    "127.255.255.254",
    "0.0.0.0",
    "10.1.2.3",
    "172.16.0.1",
    "192.168.1.1",
    "100.64.0.1",
    "169.254.169.254",
    "169.254.170.2",
    "100.100.100.200",
    "168.63.129.16",
    "192.0.0.192",
    "192.0.0.9",
    "192.88.99.1",
    "198.18.0.1",
    "198.51.100.1",
    "203.0.113.1",
    "192.0.2.1",
    "224.0.0.1",
    "239.255.255.250",
    "240.0.0.1",
    "255.255.255.255",
    "::",
    "::1",
    "fe80::1",
    "fe80::1%eth0",
    "fc00::1",
    "fd00:ec2::254",
    "fec0::1",
    "ff02::1",
    "2001:db8::1",
    "2001:1::1",
    "2001:20::1",
    "3ffe::1",
    "3fff::1",
    "5f00::1",
    "100::1",
    "4000::1",
    "fd20:ce::254",
    "::127.0.0.1",
    "::ffff:127.0.0.1",
    "::ffff:7f00:1",
    "::ffff:169.254.169.254",
    "::ffff:8.8.8.8",
    "::ffff:0:127.0.0.1",
    "64:ff9b::127.0.0.1",
    "64:ff9b::169.254.169.254",
    "64:ff9b::10.0.0.1",
    "64:ff9b::192.0.0.192",
    "64:ff9b::192.88.99.1",
    "64:ff9b:1::7f00:1",
    "2002:7f00:1::",
    "2002:a9fe:a9fe::1",
    "2001:0:7f00:1::",
    "2001:0:4136:e378:8000:63bf:80ff:fffe",
    "2606:4700::5efe:127.0.0.1",
    "2606:4700::200:5efe:7f00:1",
]


@pytest.mark.parametrize("address", ELSEWHERE)
def test_an_address_inside_is_refused_whatever_its_form(address: str) -> None:
    with pytest.raises(Forbidden):
        ANY.check_address(address)
    literal = f"[{address}]" if ":" in address else address
    with pytest.raises(Forbidden):
        ANY.check_url(f"http://{literal}/")


@pytest.mark.parametrize("address", ["8.8.8.8", "2606:4700::1111", "64:ff9b::808:808"])
def test_a_public_address_is_allowed(address: str) -> None:
    ANY.check_address(address)


def test_networks_of_the_operator_s_are_allowed_but_no_metadata_service_in_them() -> None:
    networks = ["10.0.0.0/8", "fd00::/8", "169.254.0.0/16", "192.0.0.0/24", "100.64.0.0/10"]
    inside = Destinations([], [*networks, "fe80::/10"])
    for address in ("10.1.2.3", "fd12::1", "169.254.1.1", "64:ff9b::10.1.2.3"):
        inside.check_address(address)
    for address in (
        "169.254.169.254",
        "169.254.169.253",
        "169.254.170.23",
        "169.254.0.23",
        "169.254.42.42",
        "192.0.0.192",
        "64:ff9b::192.0.0.192",
        "100.100.100.200",
        "fd00:ec2::254",
        "fd00:ec2::23",
        "fd20:ce::254",
        "fd00:c1::a9fe:a9fe",
        "fd00:42::42",
        "fe80::a9fe:a9fe",
        "64:ff9b::169.254.169.254",
        "::ffff:10.1.2.3",
        "192.168.0.1",
    ):
        with pytest.raises(Forbidden):
            inside.check_address(address)


def test_what_is_public_is_ours_to_say(monkeypatch: pytest.MonkeyPatch) -> None:
    """The standard library of another release may call all of these global."""
    for kind in (ipaddress.IPv4Address, ipaddress.IPv6Address):
        monkeypatch.setattr(kind, "is_global", True)
        monkeypatch.setattr(kind, "is_multicast", False)
    for address in ELSEWHERE:
        with pytest.raises(Forbidden):
            ANY.check_address(address)


@pytest.mark.parametrize(
    ("host", "allowed"),
    [
        ("hooks.example.com", True),
        ("HOOKS.example.com.", True),
        ("a.b.internal.example", True),
        ("internal.example", False),
        ("evilinternal.example", False),
        ("hooks.example.com.evil.example", False),
        ("8.8.8.8", False),
    ],
)
def test_a_list_of_hosts_leaves_out_all_others(host: str, allowed: bool) -> None:
    listed = Destinations(["hooks.example.com", "*.internal.example"], [])
    if allowed:
        listed.check_url(f"https://{host}/")
    else:
        with pytest.raises(Forbidden):
            listed.check_url(f"https://{host}/")
