"""URLs of one PUT: of a file of the announced length, to a place where nothing lies yet.

obstore signs the host alone, so whoever has its URL could put there what they like, and again. Here
botocore signs two headers, too, with which the request has to come: the length, and that there is
no object. A store that we have not seen has to know both (S3 does, and SeaweedFS).
"""

from dataclasses import dataclass
from datetime import timedelta

import obstore
from obstore.store import S3Store

ONCE = {"If-None-Match": "*"}
"""What has to come with the file beside its length, which every client sends."""


@dataclass(frozen=True)
class PresignedPut:
    """A URL that takes one PUT, with these headers."""

    url: str
    headers: dict[str, str]


def presign_put(store: S3Store, key: str, *, bytes: int, expires_s: float) -> PresignedPut:
    """Return a URL by which anyone may once put exactly so many bytes under the key."""
    # Imported here, because it takes a fifth of a second and most processes put nothing so.
    from botocore.auth import S3SigV4QueryAuth
    from botocore.awsrequest import AWSRequest
    from botocore.credentials import Credentials
    from botocore.session import get_session

    config = store.config
    name, secret = config.get("access_key_id"), config.get("secret_access_key")
    # What the settings leave out obstore, too, finds in AWS_... or gets for the machine's role.
    credentials = (
        Credentials(name, secret, config.get("session_token"))
        if name and secret
        else get_session().get_credentials()
    )
    # Only the place is taken from this URL: how a bucket is written is the store's to know.
    place = obstore.sign(store, "PUT", key, timedelta(seconds=expires_s)).partition("?")[0]
    request = AWSRequest("PUT", place, headers={"Content-Length": str(bytes), **ONCE})
    region = str(config.get("region", "us-east-1"))
    S3SigV4QueryAuth(credentials, "s3", region, expires=int(expires_s)).add_auth(request)
    return PresignedPut(request.url, dict(ONCE))
