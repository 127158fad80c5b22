"""The certificate of the API's own TLS: checked before anything listens, renewed while it does."""

import logging
import ssl
from datetime import UTC, datetime
from pathlib import Path

from cryptography import x509

from jobstore.settings import Settings

log = logging.getLogger(__name__)


class BadCertificate(ValueError):
    """The files cannot be served with; the message says which, and why."""


class Certificate:
    """A certificate and its key, by their files."""

    def __init__(self, cert: Path, key: Path) -> None:
        self.cert, self.key = cert, key
        self._seen = self._stamps()

    @classmethod
    def of(cls, settings: Settings) -> "Certificate | None":
        """Return the settings' certificate, None for plain HTTP; raises `BadCertificate`."""
        if settings.tls_cert is None or settings.tls_key is None:
            return None
        certificate = cls(settings.tls_cert, settings.tls_key)
        certificate.load(ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER))
        return certificate

    def load(self, context: ssl.SSLContext) -> None:
        """Have connections that begin from now on use it; raises `BadCertificate`."""
        for name, path in (("CERT", self.cert), ("KEY", self.key)):
            try:
                path.read_bytes()
            except OSError as error:
                raise BadCertificate(f"ATMC_TLS_{name}={path}: {error.strerror}") from error
        try:
            first = x509.load_pem_x509_certificates(self.cert.read_bytes())[0]
        except ValueError as error:
            raise BadCertificate(f"ATMC_TLS_CERT={self.cert}: no certificate in PEM") from error
        now = datetime.now(UTC)
        if not first.not_valid_before_utc <= now <= first.not_valid_after_utc:
            raise BadCertificate(
                f"ATMC_TLS_CERT={self.cert}: it holds from {first.not_valid_before_utc} to "
                f"{first.not_valid_after_utc}; renew it"
            )
        try:
            context.load_cert_chain(self.cert, self.key, password=self._refuse)
        except ssl.SSLError as error:
            raise BadCertificate(
                f"ATMC_TLS_KEY={self.key}: no key in PEM, or not that of {self.cert} "
                f"({error.reason or error})"
            ) from error

    def renew(self, context: ssl.SSLContext) -> None:
        """Load the files again if they have changed; what cannot be used is said and left."""
        stamps = self._stamps()
        if stamps == self._seen:
            return
        self._seen = stamps
        try:
            self.load(context)
            log.info("the certificate was renewed")
        except BadCertificate as error:
            log.error("the new certificate is not used: %s", error)

    def _stamps(self) -> tuple[float, ...]:
        return tuple(p.stat().st_mtime if p.exists() else 0.0 for p in (self.cert, self.key))

    def _refuse(self) -> str:
        # Else OpenSSL would ask whoever started the service for it.
        raise BadCertificate(f"ATMC_TLS_KEY={self.key}: it has a password; give it without")
