"""Where a webhook may go: a check of the URL when it is given, of the address when it is called.

The service stands inside a network that callers of its API may not reach. A URL of theirs must not
take it to the metadata service, to its own database, or to a neighbour: not by the name, not by an
odd way to write an address, not by a name that resolves to something else the second time.
So names are only a first look (`check_url`); what counts is the address that the connection is
made to (`check_address`), after which nothing is resolved again.
"""

import ipaddress
import re
from collections.abc import Iterable, Sequence
from urllib.parse import SplitResult, urlsplit

from jobstore.settings import Settings

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
Network = ipaddress.IPv4Network | ipaddress.IPv6Network

MAX_URL = 2000

# Printable ASCII without what parsers disagree about.
_PLAIN = re.compile(r"[!-~]+")
_CONFUSING = frozenset('\\<>"{}|^`')
_LABEL = r"[a-z0-9_]([a-z0-9_-]{0,61}[a-z0-9_])?"
_NAME = re.compile(rf"(?=.{{1,253}}$)({_LABEL}\.)*{_LABEL}\.?")
# The C library reads these as addresses: 2130706433, 0x7f.1, 0177.0.0.1.
_NUMERIC = re.compile(r"(0x[0-9a-f]*|[0-9]+)\.?")

# Clouds give out credentials, or the machine's configuration, at these addresses; no setting opens
# them.
_METADATA = tuple(
    map(
        ipaddress.ip_network,
        (
            "169.254.169.0/24",  # nearly all clouds; AWS has resolver and clock there, too
            "169.254.170.0/24",  # AWS: credentials of containers
            "169.254.0.23/32",  # Tencent
            "169.254.42.42/32",  # Scaleway
            "192.0.0.192/32",  # Oracle
            "100.100.100.200/32",  # Alibaba
            "168.63.129.16/32",  # Azure
            "fd00:ec2::/32",  # AWS
            "fd20:ce::/32",  # Google
            "fd00:c1::/32",  # Oracle
            "fd00:42::42/128",  # Scaleway
            "fe80::a9fe:a9fe/128",  # OpenStack
        ),
    )
)
# What IANA's registries of special purposes hold back, whole where parts of it are special. The
# standard library's `is_global` changes from release to release, and is asked as well.
_NOT_PUBLIC = tuple(
    map(
        ipaddress.ip_network,
        (
            "0.0.0.0/8",
            "10.0.0.0/8",
            "100.64.0.0/10",  # shared by carriers
            "127.0.0.0/8",
            "169.254.0.0/16",
            "172.16.0.0/12",
            "192.0.0.0/24",  # protocols'
            "192.0.2.0/24",  # examples
            "192.88.99.0/24",  # once 6to4's relays
            "192.168.0.0/16",
            "198.18.0.0/15",  # benchmarks
            "198.51.100.0/24",  # examples
            "203.0.113.0/24",  # examples
            "224.0.0.0/3",  # multicast and what is reserved
            "2001::/23",  # protocols'
            "2001:db8::/32",  # examples
            "2002::/16",  # 6to4
            "3ffe::/16",  # once the 6bone
            "3fff::/20",  # examples
        ),
    )
)
# The rest of IPv6 is no unicast, private, or of no use yet.
_UNICAST = ipaddress.IPv6Network("2000::/3")
# IPv6-only networks reach the IPv4 world by this prefix; the address inside is judged.
_NAT64 = ipaddress.IPv6Network("64:ff9b::/96")
# Other forms of an IPv4 address, which no resolver has a reason to answer with.
_DISGUISES = tuple(
    map(
        ipaddress.IPv6Network,
        (
            "::/96",  # IPv4-compatible
            "::ffff:0:0/96",  # mapped
            "::ffff:0:0:0/96",  # translated (SIIT)
            "64:ff9b:1::/48",  # NAT64 of a network's own
            "2001::/32",  # Teredo
            "2002::/16",  # 6to4
            "fec0::/10",  # site-local, long gone, but not to the standard library
        ),
    )
)
_ISATAP = (0x00005EFE, 0x02005EFE)


class Forbidden(ValueError):
    """The service does not go there; the message says why, and names no address it found."""


class Destinations:
    """The addresses that the operator allows to be called.

    A host must be one of `hosts` (none: any host; `*.example.com`: all below it), and its address
    public or in one of `networks`.
    """

    def __init__(self, hosts: Sequence[str], networks: Sequence[str]) -> None:
        self._hosts = [host.lower().rstrip(".") for host in hosts]
        self._networks = [ipaddress.ip_network(network) for network in networks]

    @classmethod
    def from_settings(cls, settings: Settings) -> "Destinations":
        """Read the operator's lists; raises ValueError for a network that is none."""
        hosts, networks = map(_listed, (settings.webhook_hosts, settings.webhook_networks))
        try:
            return cls(hosts, networks)
        except ValueError as error:
            raise ValueError(f"ATMC_WEBHOOK_NETWORKS: {error}") from error

    def check_url(self, url: str) -> SplitResult:
        """Return the parts of a URL that may be called, as far as it tells; raises `Forbidden`."""
        if len(url) > MAX_URL or not _PLAIN.fullmatch(url) or _CONFUSING & set(url):
            raise Forbidden("it must be plain ASCII without spaces, quotes or backslashes")
        try:
            parts = urlsplit(url)
            host, port = parts.hostname or "", parts.port
        except ValueError as error:
            raise Forbidden("its host or port cannot be read") from error
        if parts.scheme not in ("https", "http"):
            raise Forbidden("it must begin with https:// or http://")
        if "[" in parts.netloc and ":" not in host:
            raise Forbidden("its host is no address in brackets")
        if "@" in parts.netloc:
            raise Forbidden("it must not have a user name or password in it")
        if parts.fragment or url.endswith("#"):
            raise Forbidden("it must not have a fragment")
        if port == 0:
            raise Forbidden("it must not name port 0")
        self._check_host(host)
        return parts

    def check_address(self, text: str) -> None:
        """Raise `Forbidden` for an address that must not be called, in whatever form it comes."""
        # A zone (fe80::1%eth0) is of link-local addresses only.
        if "%" in text:
            raise Forbidden("its address is of one link only")
        address = _seen_through(ipaddress.ip_address(text))
        if _is_in(address, _METADATA):
            raise Forbidden("its address is a metadata service's")
        if not _is_in(address, self._networks) and not _is_public(address):
            raise Forbidden("its address is not public, and in no network that is allowed")

    def _check_host(self, host: str) -> None:
        address = _literal(host)
        if address is None and (
            not _NAME.fullmatch(host) or _NUMERIC.fullmatch(host.rstrip(".").rpartition(".")[2])
        ):
            raise Forbidden("its host is neither a name nor an address in its usual form")
        if self._hosts and not any(_covers(pattern, host) for pattern in self._hosts):
            raise Forbidden("its host is not one that the operator allows")
        if address is not None:
            self.check_address(host)


def _listed(text: str) -> list[str]:
    return [part.strip() for part in text.split(",") if part.strip()]


def _literal(host: str) -> Address | None:
    try:
        return ipaddress.ip_address(host)
    except ValueError:
        return None


def _is_in(address: Address, networks: Iterable[Network]) -> bool:
    return any(address in network for network in networks if network.version == address.version)


def _is_public(address: Address) -> bool:
    # The standard library calls multicast addresses global.
    if address.is_multicast or not address.is_global or _is_in(address, _NOT_PUBLIC):
        return False
    return isinstance(address, ipaddress.IPv4Address) or address in _UNICAST


def _covers(pattern: str, host: str) -> bool:
    host = host.rstrip(".")
    return host == pattern or (pattern.startswith("*.") and host.endswith(pattern[1:]))


def _seen_through(address: Address) -> Address:
    """Return the address that is meant; raises `Forbidden` for one in disguise."""
    if isinstance(address, ipaddress.IPv4Address):
        return address
    if address in _NAT64:
        return ipaddress.IPv4Address(int(address) & 0xFFFFFFFF)
    isatap = (int(address) >> 32) & 0xFFFFFFFF in _ISATAP
    if isatap or any(address in network for network in _DISGUISES):
        raise Forbidden("its address is another one in disguise")
    return address
