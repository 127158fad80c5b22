"""A bucket that keeps versions, on the S3 server of the tests."""

from typing import Any
from uuid import uuid4

import botocore.session


class VersionedBucket:
    """A bucket of its own that keeps the versions of its objects."""

    def __init__(self, s3: dict[str, str]) -> None:
        self.endpoint = s3["store_endpoint"]
        self.client: Any = botocore.session.get_session().create_client(
            "s3",
            region_name="us-east-1",
            endpoint_url=self.endpoint,
            aws_access_key_id=s3["store_access_key_id"],
            aws_secret_access_key=s3["store_secret_access_key"],
        )
        self.name = f"versions-{uuid4().hex}"
        self.client.create_bucket(Bucket=self.name)
        self.client.put_bucket_versioning(
            Bucket=self.name, VersioningConfiguration={"Status": "Enabled"}
        )

    def put(self, key: str, content: bytes) -> str:
        """Put an object; returns its version."""
        return str(self.client.put_object(Bucket=self.name, Key=key, Body=content)["VersionId"])
