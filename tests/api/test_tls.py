"""The service's own TLS: a real https request, files that are looked at first, and a renewal."""

import contextlib
import os
import socket
import ssl
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path

import httpx
import pytest
import trustme

from atmc_client import Client
from jobstore.certificate import BadCertificate, Certificate
from jobstore.settings import Settings
from tests.api.conftest import settings_in, wait_until
from tests.api.processes import refusal, serving


def write(authority: trustme.CA, folder: Path, name: str = "localhost") -> dict[str, str]:
    """Write a certificate of the authority's; returns the settings that name it."""
    folder.mkdir(exist_ok=True)
    issued = authority.issue_cert(name, "127.0.0.1")
    cert, key = folder / "cert.pem", folder / "key.pem"
    cert.write_bytes(b"".join(pem.bytes() for pem in issued.cert_chain_pems))
    issued.private_key_pem.write_to_path(str(key))
    return {"ATMC_TLS_CERT": str(cert), "ATMC_TLS_KEY": str(key)}


def trusting(authority: trustme.CA) -> ssl.SSLContext:
    context = ssl.create_default_context()
    authority.configure_trust(context)
    return context


def test_a_request_over_https_is_answered_and_a_renewed_certificate_used(
    tmp_path: Path, template: Path, broker: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = trustme.CA(), trustme.CA()
    files = write(first, tmp_path / "tls")
    settings = settings_in(tmp_path / "data", template, broker)
    with serving(settings, **files) as (_, plain):
        url = plain.replace("http://127.0.0.1", "https://localhost")

        def answers(authority: trustme.CA) -> bool:
            try:
                with httpx.Client(verify=trusting(authority), trust_env=False) as http:
                    return http.get(f"{url}/readyz").status_code == 200
            except httpx.ConnectError:
                return False

        wait_until(lambda: answers(first))
        port = int(plain.rpartition(":")[2])
        silent = socket.create_connection(("127.0.0.1", port), timeout=30)
        # Nobody is served without it, nor under another's authority.
        with pytest.raises(httpx.TransportError):
            httpx.get(f"{plain}/healthz", trust_env=False)
        assert not answers(second)
        # The client trusts an authority of the operator's own.
        first.cert_pem.write_to_path(str(tmp_path / "authority.pem"))
        monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "authority.pem"))
        with Client(url) as client:
            assert client.list_jobs() == []
        write(second, tmp_path / "tls")
        wait_until(lambda: answers(second))
        # Who does not say hello is not waited for as long.
        with silent, contextlib.suppress(ConnectionError):
            assert silent.recv(1) == b""


def test_files_that_cannot_be_served_with_are_refused_at_the_start(tmp_path: Path) -> None:
    authority = trustme.CA()
    mine, other = tmp_path / "mine", tmp_path / "other"
    files = write(authority, mine)
    write(authority, other)
    cert, key = Path(files["ATMC_TLS_CERT"]), Path(files["ATMC_TLS_KEY"])
    ended = tmp_path / "ended.pem"
    past = datetime.now(UTC) - timedelta(days=1)
    issued = authority.issue_cert("localhost", not_after=past, not_before=past - timedelta(days=9))
    ended.write_bytes(issued.cert_chain_pems[0].bytes())
    sealed = tmp_path / "sealed.pem"
    command = ["openssl", "pkey", "-aes128", "-passout", "pass:x", "-in", key, "-out", sealed]
    subprocess.run(command, check=True, capture_output=True)
    for bad_cert, bad_key, why in (
        (tmp_path / "absent", key, "ATMC_TLS_CERT=.*No such file"),
        (cert, tmp_path / "absent", "ATMC_TLS_KEY=.*No such file"),
        (tmp_path, key, "ATMC_TLS_CERT=.*Is a directory"),
        (key, key, "no certificate in PEM"),
        (cert, cert, "no key in PEM"),
        (cert, other / "key.pem", "not that of"),
        (ended, issued_key(issued, tmp_path), "renew it"),
        (cert, sealed, "has a password"),
    ):
        with pytest.raises(BadCertificate, match=why):
            Certificate.of(Settings(tls_cert=bad_cert, tls_key=bad_key))
    with pytest.raises(ValueError, match="one without the other"):
        Settings(tls_cert=cert)
    wrong = {"ATMC_TLS_CERT": str(cert), "ATMC_TLS_KEY": str(other / "key.pem")}
    assert "not that of" in refusal(ATMC_HOME=str(tmp_path), **wrong)


def issued_key(issued: trustme.LeafCert, folder: Path) -> Path:
    path = folder / "ended.key"
    issued.private_key_pem.write_to_path(str(path))
    return path


def test_a_renewal_that_cannot_be_used_leaves_the_old_certificate(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    write(trustme.CA(), tmp_path)
    certificate = Certificate(tmp_path / "cert.pem", tmp_path / "key.pem")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    certificate.load(context)
    (tmp_path / "key.pem").write_text("half of a file")
    os.utime(tmp_path / "key.pem", (1, 1))
    certificate.renew(context)
    certificate.renew(context)
    assert caplog.text.count("the new certificate is not used") == 1


def test_the_launcher_says_what_is_wrong_before_it_starts_anything(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "launcher", "--data-dir", str(tmp_path / "data")]
    command += ["--port", "0", "--tls-cert", str(tmp_path / "no"), "--tls-key", str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 2
    assert "error: ATMC_TLS_CERT=" in done.stderr
    assert not (tmp_path / "data" / "service.json").exists()
