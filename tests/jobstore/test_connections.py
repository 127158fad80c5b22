"""What a connection signs with, and which version of an object it reads, on a real S3 server."""

import json
import ssl
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
import trustme

from jobstore.connections import Connection, Place
from jobstore.remote import SourceError, look, stream
from tests.buckets import VersionedBucket

EXPIRES = "2999-01-01T00:00:00Z"
TOKEN = "token-of-the-pod"


class Platform(ThreadingHTTPServer):
    """Answers as the addresses at which a machine asks its cloud who it is."""

    keys: dict[str, str]
    asked: list[tuple[str, str | None]]
    scheme = "http"

    @property
    def url(self) -> str:
        return f"{self.scheme}://127.0.0.1:{self.server_port}"

    def speak_tls(self, authority: trustme.CA) -> None:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        authority.issue_cert("127.0.0.1").configure_cert(context)
        self.socket = context.wrap_socket(self.socket, server_side=True)
        self.scheme = "https"


class _Handler(BaseHTTPRequestHandler):
    server: Platform

    def do_PUT(self) -> None:
        self._answer("token-of-the-machine")

    def do_GET(self) -> None:
        machine = self.headers["X-aws-ec2-metadata-token"]
        self.server.asked.append((self.path, self.headers["Authorization"] or machine))
        role = self.path.endswith("/security-credentials/")
        self._answer("role-of-the-machine" if role else json.dumps(self.server.keys))

    def do_POST(self) -> None:
        """As the security token service takes a web identity."""
        self.server.asked.append((self.path, None))
        keys = self.server.keys
        given = {
            "AccessKeyId": keys["AccessKeyId"],
            "SecretAccessKey": keys["SecretAccessKey"],
            "SessionToken": keys["Token"],
            "Expiration": EXPIRES,
        }
        fields = "".join(f"<{name}>{value}</{name}>" for name, value in given.items())
        action = "AssumeRoleWithWebIdentity"
        result = f"<{action}Result><Credentials>{fields}</Credentials></{action}Result>"
        self._answer(f"<{action}Response>{result}</{action}Response>")

    def _answer(self, text: str) -> None:
        self.send_response(200)
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text.encode())

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def platform(s3: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> Iterator[Platform]:
    """One that gives the store's own keys out, and nothing of a cloud's in the environment."""
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    server = Platform(("127.0.0.1", 0), _Handler)
    server.asked = []
    server.keys = {
        "AccessKeyId": s3["store_access_key_id"],
        "SecretAccessKey": s3["store_secret_access_key"],
        "Token": "",
        "Expiration": EXPIRES,
        "LastUpdated": EXPIRES,
        "Code": "Success",
        "Type": "AWS-HMAC",
    }
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


def lake(bucket: VersionedBucket, **more: Any) -> Connection:
    """A connection that may read the bucket."""
    places = {"read": [f"s3://{bucket.name}/"], "endpoint": bucket.endpoint}
    return Connection(name="lake", tenants=["red"], **places, **more)


def place_of(bucket: VersionedBucket, key: str) -> Place:
    return Place.of(f"s3://{bucket.name}/{key}")


@pytest.fixture(scope="module")
def bucket(s3: dict[str, str]) -> VersionedBucket:
    return VersionedBucket(s3)


@pytest.fixture
def keyed(
    bucket: VersionedBucket, s3: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> Connection:
    """A connection with the keys of a variable and a file."""
    monkeypatch.setenv("LAKE_ID", s3["store_access_key_id"])
    monkeypatch.setenv("LAKE_KEY", s3["store_secret_access_key"])
    return lake(bucket, access_key_id_env="LAKE_ID", secret_access_key_env="LAKE_KEY")


def read(connection: Connection, place: Place, **which: Any) -> bytes:
    return b"".join(stream(connection, place, look(connection, place, **which)))


def test_a_pod_s_own_credentials_open_a_bucket(
    bucket: VersionedBucket, platform: Platform, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "token").write_text(TOKEN)
    monkeypatch.setenv("AWS_CONTAINER_CREDENTIALS_FULL_URI", f"{platform.url}/v1/credentials")
    monkeypatch.setenv("AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE", str(tmp_path / "token"))
    bucket.put("net", b"of the pod")
    connection = lake(bucket, credentials="workload")
    assert read(connection, place_of(bucket, "net")) == b"of the pod"
    assert set(platform.asked) == {("/v1/credentials", TOKEN)}
    # They are asked for at each use, so that a role that was taken away opens nothing.
    platform.keys["SecretAccessKey"] = "another"
    with pytest.raises(SourceError) as refused:
        look(connection, place_of(bucket, "net"))
    assert refused.value.code == "source_refused"


def test_so_do_a_machine_s(
    bucket: VersionedBucket, platform: Platform, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_METADATA_ENDPOINT", platform.url)
    bucket.put("net", b"of the machine")
    connection = lake(bucket, credentials="workload")
    assert read(connection, place_of(bucket, "net")) == b"of the machine"
    path, token = platform.asked[-1]
    assert path.endswith("/iam/security-credentials/role-of-the-machine")
    assert token == "token-of-the-machine"


def test_so_does_a_web_identity(
    bucket: VersionedBucket, platform: Platform, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    authority = trustme.CA()
    authority.cert_pem.write_to_path(str(tmp_path / "ca.pem"))
    platform.speak_tls(authority)
    (tmp_path / "token").write_text(TOKEN)
    role = "arn:aws:iam::123456789012:role/reader"
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "ca.pem"))
    monkeypatch.setenv("AWS_WEB_IDENTITY_TOKEN_FILE", str(tmp_path / "token"))
    monkeypatch.setenv("AWS_ROLE_ARN", role)
    monkeypatch.setenv("AWS_ENDPOINT_URL_STS", platform.url)
    bucket.put("net", b"of the identity")
    connection = lake(bucket, credentials="workload")
    assert read(connection, place_of(bucket, "net")) == b"of the identity"
    asked = parse_qs(urlsplit(platform.asked[0][0]).query)
    assert (asked["WebIdentityToken"], asked["RoleArn"]) == ([TOKEN], [role])


def test_the_others_do_not_ask_the_machine(
    bucket: VersionedBucket, keyed: Connection, platform: Platform, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever stands in the environment for the service's own store."""
    monkeypatch.setenv("AWS_METADATA_ENDPOINT", platform.url)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "the-service-s-own")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "the-service-s-own")
    monkeypatch.setenv("AWS_SESSION_TOKEN", "the-service-s-own")
    monkeypatch.setenv("AWS_ENDPOINT_URL", platform.url)
    bucket.put("net", b"by keys")
    assert read(keyed, place_of(bucket, "net")) == b"by keys"
    with pytest.raises(SourceError) as refused:
        look(lake(bucket, credentials="anonymous"), place_of(bucket, "net"))
    assert refused.value.code == "source_refused"
    assert platform.asked == []


def test_a_version_is_read_as_it_was(bucket: VersionedBucket, keyed: Connection) -> None:
    place = place_of(bucket, "models/net")
    first, second = bucket.put(place.path, b"first"), bucket.put(place.path, b"the second")
    assert first != second
    newest = look(keyed, place)
    assert newest.files[0].version == second
    assert read(keyed, place, version=first) == b"first"
    assert read(keyed, place, version=second) == b"the second"
    # What was looked at is fetched even if it is not the newest any more.
    bucket.put(place.path, b"third!")
    assert b"".join(stream(keyed, place, newest)) == b"the second"
    bucket.client.delete_object(Bucket=bucket.name, Key=place.path)
    assert read(keyed, place, version=first) == b"first"
    for version, code in ((None, "source_missing"), ("never-one", "source_missing")):
        with pytest.raises(SourceError) as refused:
            look(keyed, place, version=version)
        assert refused.value.code == code


def test_a_version_has_its_etag(bucket: VersionedBucket, keyed: Connection) -> None:
    place = place_of(bucket, "models/etag")
    first = bucket.put(place.path, b"first")
    bucket.put(place.path, b"second")
    found = look(keyed, place, version=first)
    etag = found.files[0].etag
    assert look(keyed, place, version=first, etag=etag) == found
    with pytest.raises(SourceError) as refused:
        look(keyed, place, etag=etag)
    assert refused.value.code == "source_changed"
