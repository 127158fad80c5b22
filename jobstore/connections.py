"""The places outside of the service that a tenant may name files in, and have results put to.

The operator's TOML file (`ATMC_CONNECTIONS`) has a table for each, by its name:

    [lake]
    tenants = ["red"]
    read = ["s3://datasets/images/", "s3://models"]
    write = ["s3://results/atmc/"]
    endpoint = "https://s3.example.com"
    access_key_id_file = "/run/secrets/lake-id"
    secret_access_key_file = "/run/secrets/lake-key"

Secrets stand in files or in the environment, and are read at each use; none is in the file itself,
in a spec or in the database.
"""

import os
import re
import ssl
import tomllib
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal, Self
from urllib.parse import urlsplit

from obstore.store import S3Store
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from jobstore.destinations import Destinations, Forbidden
from jobstore.settings import Settings

if TYPE_CHECKING:
    from obstore.store import S3Credential

MAX_URI = 2000

_S3 = re.compile(r"s3://([a-z0-9][a-z0-9.-]{1,61}[a-z0-9])(?:/([^\x00-\x1f\x7f\\?#]*))?")
_NAME = re.compile(r"[a-z0-9][a-z0-9_-]{0,62}")
_Names = Annotated[list[str], Field(min_length=1)]


class NotAllowed(ValueError):
    """No connection of the tenant's has this; the message says why."""


@dataclass(frozen=True)
class Place:
    """A URI taken apart: of S3 `host` is the bucket, `path` the key; of https the path."""

    uri: str
    scheme: str
    host: str
    path: str

    @classmethod
    def of(cls, uri: str) -> Self:
        """Raise `NotAllowed` for what is no URI of a file or folder here."""
        if len(uri) > MAX_URI:
            raise NotAllowed(f"it has more than {MAX_URI} characters")
        scheme = uri.partition("://")[0]
        if scheme == "s3":
            found = _S3.fullmatch(uri)
            if found is None:
                raise NotAllowed("it is not s3://BUCKET/KEY with a bucket's name in small letters")
            host, path = found[1], found[2] or ""
        elif scheme == "https":
            try:
                # Which addresses may be reached is each connection's own to say.
                parts = Destinations([], ["0.0.0.0/0", "::/0"]).check_url(uri)
            except Forbidden as error:
                raise NotAllowed(str(error)) from error
            if "?" in uri:
                raise NotAllowed("it has a query, in which a secret may be: leave it out")
            if re.search(r"%(?:2e|2f|5c|00)", parts.path, re.IGNORECASE):
                raise NotAllowed("its path has an encoded dot, slash or NUL")
            host, path = parts.netloc.lower(), parts.path.removeprefix("/")
        else:
            raise NotAllowed("it must begin with s3:// or https://")
        if any(part in ("", ".", "..") for part in path.removesuffix("/").split("/")) and path:
            raise NotAllowed("its path has an empty part, or one of dots")
        return cls(uri, scheme, host, path)

    def is_below(self, other: "Place") -> bool:
        """Tell whether it is the other place, or in the folder that the other is."""
        if (self.scheme, self.host) != (other.scheme, other.host):
            return False
        folder = other.path.removesuffix("/")
        return not folder or self.path == folder or self.path.startswith(f"{folder}/")


class Connection(BaseModel):
    """A table of the operator's file; see the module."""

    model_config = ConfigDict(extra="forbid", hide_input_in_errors=True)

    name: str
    tenants: _Names
    read: list[str] = []
    write: list[str] = []
    endpoint: str | None = None
    region: str = "us-east-1"
    credentials: Literal["keys", "workload", "anonymous"] = "keys"
    access_key_id_file: Path | None = None
    access_key_id_env: str | None = None
    secret_access_key_file: Path | None = None
    secret_access_key_env: str | None = None
    token_file: Path | None = None
    token_env: str | None = None
    networks: list[str] = []
    ca_file: Path | None = None

    @property
    def kind(self) -> Literal["s3", "https"]:
        """What its places are of."""
        return "s3" if [*self.read, *self.write][0].startswith("s3:") else "https"

    @model_validator(mode="after")
    def _is_whole(self) -> Self:
        places = [Place.of(uri) for uri in [*self.read, *self.write]]
        if not places:
            raise ValueError("'read' or 'write' must name a URI that may be used")
        if len({place.scheme for place in places}) > 1:
            raise ValueError("'read' and 'write' must be of one kind, s3:// or https://")
        if self.kind == "https" and self.write:
            raise ValueError("'write' takes s3:// only")
        if self.kind == "s3" and self.credentials == "keys":
            for name in ("access_key_id", "secret_access_key"):
                if self._secret(name) is None:
                    raise ValueError(
                        f"'{name}_file' or '{name}_env' is needed, or credentials = "
                        '"workload" or "anonymous"'
                    )
        if self.token_file or self.token_env:
            self._secret("token")
        if self.ca_file is not None:
            self.tls()
        Destinations([], self.networks)
        return self

    def _secret(self, name: str) -> str | None:
        """Return a secret, read now; raises ValueError where it should be and is not."""
        path, variable = getattr(self, f"{name}_file"), getattr(self, f"{name}_env")
        if path is not None:
            try:
                return str(path.read_text().strip())
            except (OSError, UnicodeDecodeError) as error:
                raise ValueError(f"{name}_file cannot be read: {error}") from error
        if variable is not None and not os.environ.get(variable):
            raise ValueError(f"{name}_env names {variable}, which is not set")
        return None if variable is None else os.environ[variable]

    def allows(self, place: Place, *, writing: bool) -> bool:
        """Tell whether the place may be read, or written to."""
        listed = self.write if writing else self.read
        return any(place.is_below(Place.of(uri)) for uri in listed)

    def bucket(self, name: str) -> S3Store:
        """Open a bucket; nothing is connected to yet."""
        options: dict[str, object] = {"region": self.region}
        if self.endpoint is not None:
            options["endpoint"] = self.endpoint
        keys: S3Credential | None = None
        if self.credentials == "keys":
            # Given as options, they would be joined by the session token of the service's own
            # environment (AWS_SESSION_TOKEN), which is no affair of that endpoint.
            keys = {
                "access_key_id": self._secret("access_key_id") or "",
                "secret_access_key": self._secret("secret_access_key") or "",
                "token": None,
                "expires_at": None,
            }
        elif self.credentials == "anonymous":
            options["skip_signature"] = True
        client = {
            "allow_http": (self.endpoint or "").startswith("http://"),
            "connect_timeout": timedelta(seconds=5),
            "read_timeout": timedelta(seconds=30),
            # This limits a whole object.
            "timeout": timedelta(hours=6),
        }
        retries = {"max_retries": 2, "retry_timeout": timedelta(seconds=10)}
        return S3Store(
            name,
            config=options,  # type: ignore[arg-type]
            client_options=client,  # type: ignore[arg-type]
            retry_config=retries,  # type: ignore[arg-type]
            credential_provider=None if keys is None else lambda: keys,
        )

    def destinations(self) -> Destinations:
        """Return what of the network may be reached by https."""
        hosts = sorted({urlsplit(uri).hostname or "" for uri in self.read})
        return Destinations(hosts, self.networks)

    def tls(self) -> ssl.SSLContext:
        """Return whom https trusts."""
        return ssl.create_default_context(cafile=self.ca_file)

    def headers(self) -> list[tuple[str, str]]:
        """Return the headers of a request by https."""
        token = self._secret("token")
        return [] if token is None else [("Authorization", f"Bearer {token}")]


class Connections:
    """All connections, of all tenants."""

    def __init__(self, connections: Iterable[Connection] = ()) -> None:
        self._connections = list(connections)

    @classmethod
    def from_settings(cls, settings: Settings) -> "Connections":
        """Read the operator's file; raises ValueError that says what is wrong with it."""
        path = settings.connections
        if path is None:
            return cls()
        try:
            tables = tomllib.loads(path.read_text())
        except (OSError, ValueError) as error:
            raise ValueError(f"ATMC_CONNECTIONS: {path}: {error}") from error
        found = []
        for name, table in tables.items():
            if not _NAME.fullmatch(name) or not isinstance(table, dict):
                raise ValueError(
                    f"ATMC_CONNECTIONS: {name!r} must be a table, [{name}], named in small "
                    "letters, digits, - and _"
                )
            try:
                found.append(Connection(name=name, **table))
            except (ValidationError, TypeError) as error:
                raise ValueError(f"ATMC_CONNECTIONS: [{name}]: {_first(error)}") from error
        return cls(found)

    def __bool__(self) -> bool:
        return bool(self._connections)

    def of(self, tenant: str) -> list[Connection]:
        """Return the tenant's."""
        return [each for each in self._connections if tenant in each.tenants]

    def find(
        self, tenant: str, name: str | None, place: Place, *, writing: bool = False
    ) -> Connection:
        """Return the tenant's connection that has the place, or the one named; else `NotAllowed`.

        That of another tenant is as unknown as one that never was.
        """
        own = [each for each in self.of(tenant) if name in (None, each.name)]
        if name is not None and not own:
            raise NotAllowed(f"there is no connection {name[:64]!r}")
        found = [each for each in own if each.allows(place, writing=writing)]
        if not found:
            doing = "written to" if writing else "read"
            raise NotAllowed(f"no connection of yours lets it be {doing}")
        if len(found) > 1:
            names = ", ".join(each.name for each in found)
            raise NotAllowed(f"several connections have it ({names}): name one in 'connection'")
        return found[0]


def _first(error: ValidationError | TypeError) -> str:
    if isinstance(error, TypeError):
        return str(error)
    first = error.errors()[0]
    where = ".".join(map(str, first["loc"]))
    return f"{where}: {first['msg']}" if where else first["msg"]
