"""Holds an exported audit log against its own hashes, and against heads that were kept elsewhere.

A line is a record, `{"seq", "previous", "hash", ...}`, or `{"head": {...}}`, which says where a
tenant's chain stands. A record's hash is the SHA-256 of its JSON without `hash`, names sorted,
without white space, in UTF-8; `previous` is the hash of the one before it.
"""

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

GENESIS = "0" * 64


class Broken(Exception):
    """The log is not what was written; the message says where that shows."""


@dataclass
class Chain:
    """A tenant's records, as far as they have been read."""

    first: int = 0
    seq: int = 0
    hash: str = GENESIS
    begins_after: str = GENESIS
    hashes: dict[int, str] = field(default_factory=dict)
    # What the chain says of its own beginning: the last records that have expired.
    expired: set[tuple[str, str]] = field(default_factory=set)


def verify(
    lines: Iterable[str], heads: Iterable[Mapping[str, Any]] = (), *, part: bool = False
) -> dict[str, Chain]:
    """Return the chains by tenant if they hold; raises `Broken` where they do not.

    Args:
        lines: the export.
        heads: `{"tenant", "seq", "hash"}` as `GET /audit/heads` had them before, which finds out
            what was cut or written anew since.
        part: whether the export left records out, so that only what is there can be held.
    """
    chains: dict[str, Chain] = {}
    said: list[Mapping[str, Any]] = []
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        entry = _read(line, number)
        if isinstance(entry.get("head"), dict):
            said.append(entry["head"])
            chains.setdefault(str(entry["head"].get("tenant")), Chain())
        else:
            _add(chains, entry, number, part)
    if part:
        return chains
    for tenant, chain in chains.items():
        _check_beginning(tenant, chain)
    ended = {str(head.get("tenant")) for head in said}
    for tenant in chains:
        if tenant not in ended:
            raise Broken(
                f"{tenant}: the export does not say where the chain ends: its end was cut off, or "
                "it is a part (--part)"
            )
    for head in said:
        _check_end(chains, head)
    for head in heads:
        _check_head(chains, head)
    return chains


def _read(line: str, number: int) -> dict[str, Any]:
    try:
        entry = json.loads(line)
    except ValueError as error:
        raise Broken(f"line {number} is no JSON") from error
    if not isinstance(entry, dict):
        raise Broken(f"line {number} is no record")
    return entry


def _add(chains: dict[str, Chain], record: dict[str, Any], number: int, part: bool) -> None:
    tenant, seq, own = str(record.get("tenant")), record.get("seq"), record.get("hash")
    where = f"line {number} ({tenant}, {seq})"
    if not isinstance(seq, int) or not isinstance(own, str):
        raise Broken(f"line {number} is no record of an audit log")
    if hash_of(record) != own:
        raise Broken(f"{where} was changed: its hash does not fit what it says")
    chain = chains.setdefault(tenant, Chain())
    if not chain.hashes:
        chain.first, chain.begins_after = seq, str(record.get("previous"))
    elif seq <= chain.seq:
        raise Broken(f"{where} stands behind {chain.seq}: records were moved or repeated")
    elif seq != chain.seq + 1:
        if not part:
            missing = seq - chain.seq - 1
            raise Broken(
                f"{where} follows {chain.seq}: {missing} records are missing; or it is a part "
                "(--part)"
            )
    elif record.get("previous") != chain.hash:
        raise Broken(f"{where} does not follow the record before it, which was changed")
    chain.seq, chain.hash = seq, own
    chain.hashes[seq] = own
    detail = record.get("detail")
    if record.get("action") == "audit.expire" and isinstance(detail, dict):
        chain.expired.add((str(detail.get("seq")), str(detail.get("hash"))))


def hash_of(record: Mapping[str, Any]) -> str:
    """Return the hash (hex) that the record is to have."""
    rest = {name: value for name, value in record.items() if name != "hash"}
    text = json.dumps(rest, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return hashlib.sha256(text.encode(errors="surrogatepass")).hexdigest()


def _check_beginning(tenant: str, chain: Chain) -> None:
    if not chain.hashes:
        return
    begins = (str(chain.first - 1), chain.begins_after)
    if begins != ("0", GENESIS) and begins not in chain.expired:
        raise Broken(
            f"{tenant}: the chain begins at {chain.first}, and no record in it says that those "
            "before have expired; or it is a part (--part)"
        )


def _check_end(chains: dict[str, Chain], head: Mapping[str, Any]) -> None:
    chain = chains[str(head.get("tenant"))]
    if (chain.seq, chain.hash) != (head.get("seq"), head.get("hash")):
        raise Broken(
            f"{head.get('tenant')}: the chain ends at {chain.seq}, and its head is "
            f"{head.get('seq')}: records at the end are missing or were changed"
        )


def _check_head(chains: dict[str, Chain], head: Mapping[str, Any]) -> None:
    tenant, seq = str(head["tenant"]), int(head["seq"])
    chain = chains.get(tenant)
    if chain is None or seq > chain.seq:
        raise Broken(f"{tenant}: the head that was kept is {seq}, and there is no such record")
    if seq >= chain.first and chain.hashes.get(seq) != head.get("hash"):
        raise Broken(f"{tenant}: record {seq} is another than the head that was kept")
