"""Everything that may be set, read from the environment (`ATMC_...`) once a process."""

import ipaddress
import os
from pathlib import Path
from typing import Annotated, Any, Literal, Self
from urllib.parse import quote, urlsplit

from pydantic import AfterValidator, Field, SecretStr, model_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

_GIB = 1 << 30

# What databases and timers can count: larger ones would fail where they are used.
_Seconds = Annotated[float, Field(le=1e10, allow_inf_nan=False)]
_Count = Annotated[int, Field(le=2**62)]
# A variable that is there and empty, as compose files leave them, is none.
_TextOrNone = Annotated[str | None, AfterValidator(lambda text: text or None)]


def _sqlite_in_home(data: dict[str, Any]) -> str:
    return f"sqlite:///{data['home'] / 'atmc.db'}"


def _folder_in_home(data: dict[str, Any]) -> str:
    return Path(data["home"], "objects").as_uri()


def _with_password(url: str, password: SecretStr) -> str:
    """Put the password into a URL that has a host and no password."""
    parts = urlsplit(url)
    if parts.password is not None or not parts.hostname:
        raise ValueError(f"a password beside a URL of {parts.scheme} that has one or takes none")
    user, _, host = parts.netloc.rpartition("@")
    secret = quote(password.get_secret_value(), safe="")
    return parts._replace(netloc=f"{user}:{secret}@{host}").geturl()


class Settings(BaseSettings):
    """The service's settings; a URL chooses a backend, nothing else in the code does.

    Sizes are in bytes, times in seconds. What the environment does not set may be a file in the
    folder `ATMC_SECRETS_DIR`, named as the variable would be, in small letters.
    """

    # Some settings are secrets, so an error names the setting and leaves its value out.
    model_config = SettingsConfigDict(env_prefix="ATMC_", hide_input_in_errors=True)

    home: Annotated[Path, AfterValidator(Path.absolute)] = Field(
        default=Path("data"), validate_default=True
    )
    database_url: str = Field(default_factory=_sqlite_in_home)
    broker_url: str = "redis://127.0.0.1:6379/0"
    # A password is put into a URL that has none: the URL may be public, the password is a file.
    database_password: SecretStr | None = None
    broker_password: SecretStr | None = None

    store_url: str = Field(default_factory=_folder_in_home)
    store_endpoint: str | None = None
    store_access_key_id: str | None = None
    store_secret_access_key: SecretStr | None = None
    store_region: str = "us-east-1"

    lease_s: _Seconds = Field(default=30, gt=0)
    heartbeat_s: _Seconds = Field(default=5, gt=0)
    sweep_s: _Seconds = Field(default=5, gt=0)
    max_attempts: _Count = Field(default=3, ge=1)
    time_limit_s: _Seconds = Field(default=86_400, gt=0)
    # These hold for tenants that have no terms of their own; None keeps for ever. Uploads stay
    # while a job needs them. Checkpoints of failed and cancelled jobs stay for a retry.
    keep_uploads_s: _Seconds | None = Field(default=90 * 86_400, ge=0)
    keep_checkpoints_s: _Seconds | None = Field(default=7 * 86_400, ge=0)
    keep_artifacts_s: _Seconds | None = Field(default=365 * 86_400, ge=0)
    keep_events_s: _Seconds | None = Field(default=365 * 86_400, ge=0)
    # Records of the audit log are kept so long, of all tenants'; None keeps them for ever.
    keep_audit_s: _Seconds | None = Field(default=730 * 86_400, ge=0)
    # The sweep looks for what has expired this often.
    retention_s: _Seconds = Field(default=3_600, gt=0)

    # These limits hold for tenants that have none of their own; None is no limit.
    max_stored_bytes: _Count | None = Field(default=1024 * _GIB, ge=0)
    max_queued_jobs: _Count | None = Field(default=10_000, ge=0)
    max_running_jobs: _Count | None = Field(default=None, ge=0)
    requests_per_minute: _Count | None = Field(default=60_000, ge=1)

    max_model_bytes: _Count = Field(default=1 * _GIB, gt=0)
    max_dataset_bytes: _Count = Field(default=4 * _GIB, gt=0)
    # An upload in several requests is deleted if it is not used this long after its first request.
    upload_lifetime_s: _Seconds = Field(default=86_400, gt=0)
    max_inflated_bytes: _Count = Field(default=16 * _GIB, gt=0)

    # So much of the disks of the data folder and of a store that is a folder is kept free: uploads
    # and new jobs are refused before it is used, and jobs are ended.
    reserved_bytes: _Count = Field(default=1 * _GIB, ge=0)
    # A job's folder may take so much: inputs, also inflated, checkpoints, results. It may not take
    # more than its tenant may store, either, but for 256 MiB.
    max_run_bytes: _Count = Field(default=64 * _GIB, gt=0)
    # A host's workers keep so much of what they fetched, for jobs on the same; 0 keeps nothing.
    input_cache_bytes: _Count = Field(default=8 * _GIB, ge=0)

    # A job's processes may hold this much memory together; None is nine tenths of what there is.
    memory_limit_bytes: _Count | None = Field(default=None, gt=0)
    # No file that a job's process writes may be larger; uploads have limits of their own above.
    max_file_bytes: _Count = Field(default=64 * _GIB, gt=0)

    # What reads strangers' files is shut in: as well as the machine lets it (best), or not at all
    # unless files, calls and network are shut (require).
    sandbox: Literal["require", "best", "off"] = "best"
    # Whom a worker's children may be, where it may choose: a name, an id, or FIRST-LAST.
    child_user: str = "60600-60663"

    device: Literal["auto", "cpu", "cuda"] = "auto"
    threads: int | None = Field(default=None, ge=1)

    # Both are lists divided by commas. Webhooks go to these hosts only (empty: to any;
    # *.example.com: to all below it), and to these networks although they are not public.
    webhook_hosts: str = ""
    webhook_networks: str = ""

    # A TOML file of the places that tenants may name files in, or have results put to, by URI:
    # `jobstore.connections`. Without it nothing is fetched.
    connections: Path | None = None

    log_format: Literal["text", "json"] = "text"

    # If this key is set, the service asks everybody for one; this first one makes the others.
    admin_key: SecretStr | None = Field(default=None, min_length=24)

    # Of a key that expires within so long its holder is reminded.
    key_reminder_s: _Seconds = Field(default=7 * 86_400, ge=0)

    # Tokens of an OpenID Connect provider are let in beside keys: those of this issuer for this
    # audience. The claims are names or dotted paths (realm_access.roles); a scope of ours counts
    # with the prefix in front. Keys of a provider that is away are used for so long.
    oidc_issuer: _TextOrNone = None
    oidc_audience: _TextOrNone = None
    oidc_tenant_claim: str = Field(default="tenant", min_length=1)
    oidc_scopes_claim: str = Field(default="scope", min_length=1)
    oidc_scope_prefix: str = ""
    oidc_clock_skew_s: float = Field(default=60, ge=0, le=300)
    oidc_keep_keys_s: float = Field(default=3_600, ge=60, le=86_400)
    # With a client's id the page sends people to the provider instead of asking for a token.
    oidc_client_id: _TextOrNone = None
    oidc_client_secret: SecretStr | None = None
    oidc_sign_in_scope: str = Field(default="openid", min_length=1)

    # The key that seals the secrets of webhooks in the database, for API and keeper. Of several,
    # divided by commas, the first seals and all open. Without it the data folder has one.
    secrets_key: SecretStr | None = Field(default=None, min_length=24)

    # On SIGTERM the API says at once that it is not ready, and goes on for so long; then it waits
    # so long for what is at work, and cuts off uploads and downloads that take longer.
    drain_s: _Seconds = Field(default=0, ge=0)
    finish_s: _Seconds = Field(default=2, ge=1)
    # So many requests an API process works on at a time. More answer no more where the database is
    # near, and all of them later; where its answers take many milliseconds, give it more.
    api_threads: int = Field(default=8, ge=1, le=200)
    # `/.well-known/security.txt` names it: whom to tell of a weakness in this service.
    security_contact: Annotated[str, Field(pattern=r"^(mailto:|https://|tel:)[!-~]+$")] | None = (
        None
    )

    # Workers sign results with this Ed25519 key (PEM, PKCS #8); without it they are unsigned.
    signing_key_file: Path | None = None

    host: str = "127.0.0.1"
    port: int = Field(default=8000, ge=0, le=65_535)
    # Files in PEM, the certificate with those between it and its authority. With them the API
    # speaks https and nothing else.
    tls_cert: Path | None = None
    tls_key: Path | None = None
    # Addresses and networks of proxies, divided by commas: what these say in X-Forwarded-For is
    # who calls. Nobody else is believed.
    trusted_proxies: str = ""

    def __init__(self, **values: Any) -> None:
        super().__init__(_secrets_dir=os.environ.get("ATMC_SECRETS_DIR"), **values)

    @model_validator(mode="after")
    def _passwords_into_urls(self) -> Self:
        if self.database_password is not None:
            self.database_url = _with_password(self.database_url, self.database_password)
        if self.broker_password is not None:
            self.broker_url = _with_password(self.broker_url, self.broker_password)
        self.database_password = self.broker_password = None
        return self

    def secrets_keys(self) -> list[str]:
        """Return the keys of `secrets_key`, the one that seals first; none if it is not set."""
        listed = self.secrets_key.get_secret_value() if self.secrets_key else ""
        return [key.strip() for key in listed.split(",") if key.strip()]

    @model_validator(mode="after")
    def _each_key_is_long(self) -> Self:
        if any(len(key) < 24 for key in self.secrets_keys()):
            raise ValueError("ATMC_SECRETS_KEY: each of its keys needs 24 characters or more")
        return self

    @model_validator(mode="after")
    def _lease_outlives_heartbeats(self) -> Self:
        if self.lease_s < 2 * self.heartbeat_s:
            raise ValueError(
                f"ATMC_LEASE_S ({self.lease_s:g}) must be at least twice ATMC_HEARTBEAT_S "
                f"({self.heartbeat_s:g}), or one late heartbeat loses the job"
            )
        return self

    @model_validator(mode="after")
    def _provider_is_whole(self) -> Self:
        if self.oidc_issuer is None:
            if self.oidc_client_id is not None:
                raise ValueError("ATMC_OIDC_CLIENT_ID needs ATMC_OIDC_ISSUER, the provider's name")
            return self
        if self.oidc_audience is None:
            raise ValueError(
                "ATMC_OIDC_ISSUER needs ATMC_OIDC_AUDIENCE, or tokens for others would be let in"
            )
        if self.oidc_client_secret is not None and self.oidc_client_id is None:
            raise ValueError("ATMC_OIDC_CLIENT_SECRET needs ATMC_OIDC_CLIENT_ID, whose it is")
        if not is_secure(self.oidc_issuer):
            raise ValueError(
                f"ATMC_OIDC_ISSUER={self.oidc_issuer}: an https URL is needed (http is for this "
                "machine's own addresses only), or anybody between could forge the provider's keys"
            )
        return self

    @model_validator(mode="after")
    def _proxies_are_networks(self) -> Self:
        for name in self.proxies():
            try:
                ipaddress.ip_network(name)
            except ValueError as error:
                raise ValueError(
                    f"ATMC_TRUSTED_PROXIES: {error}; addresses and networks are needed, divided by "
                    "commas: 10.0.0.5,fd00::/64"
                ) from error
        return self

    def proxies(self) -> list[str]:
        """Return the addresses and networks of `trusted_proxies`."""
        return [name.strip() for name in self.trusted_proxies.split(",") if name.strip()]

    @model_validator(mode="after")
    def _certificate_is_whole(self) -> Self:
        if (self.tls_cert is None) != (self.tls_key is None):
            raise ValueError("ATMC_TLS_CERT and ATMC_TLS_KEY: one without the other does nothing")
        return self

    @property
    def asks_who_calls(self) -> bool:
        """Whether callers have to show a key or a token."""
        return self.admin_key is not None or self.oidc_issuer is not None

    @model_validator(mode="after")
    def _nobody_else_without_keys(self) -> Self:
        if not self.asks_who_calls and not is_loopback(self.host):
            raise ValueError(
                f"ATMC_HOST={self.host}: without ATMC_ADMIN_KEY the service asks nobody for a key, "
                "so it listens on a loopback address only. Set ATMC_HOST=127.0.0.1, or a secret "
                "ATMC_ADMIN_KEY (openssl rand -hex 24), with which atmc keys create makes others."
            )
        return self


def is_secure(url: str) -> bool:
    """Tell whether nobody between can change what the URL answers: https, or this machine's own."""
    try:
        parts = urlsplit(url)
        _ = parts.port
    except ValueError:
        return False
    if parts.username is not None or not parts.hostname:
        return False
    return parts.scheme == "https" or (parts.scheme == "http" and is_loopback(parts.hostname))


def is_loopback(host: str | None) -> bool:
    """Tell whether the host can only be this machine."""
    if host is None or host == "localhost":
        return host is not None
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
