"""An S3 server (moto's, or the one of ``--s3-endpoint``), a proxy that spoils its answers, and a prefix per test.

Law: it is the only S3 of the tests, so that whatever runs before moto's server can run before a real one.
"""

import itertools
import logging
from dataclasses import dataclass
from typing import Any

import boto3
import pytest
from s3_faults import Proxy

from vitops.store.patience import Patience
from vitops.store.s3 import S3Objects

BUCKET = "vitops-tests"
ACCESS = {"AWS_ACCESS_KEY_ID": "test", "AWS_SECRET_ACCESS_KEY": "testsecret", "AWS_DEFAULT_REGION": "us-east-1"}
BRIEF = Patience(attempts=4, first_pause=0.01, longest_pause=0.05, connect_timeout=10.0, read_timeout=30.0)
"""Short pauses, and silence that even a busy machine breaks in time: the tests count requests."""
_numbers = itertools.count()


@pytest.fixture(scope="session")
def s3_server(request):
    """URL of the server, with the bucket in it."""
    endpoint = request.config.getoption("--s3-endpoint")
    server = None
    if endpoint is None:
        from moto.server import ThreadedMotoServer  # a second that the other tests do without

        logging.getLogger("werkzeug").setLevel(logging.ERROR)
        server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
        server.start()
        endpoint = "http://{}:{}".format(*server.get_host_and_port())
    _client(endpoint).create_bucket(Bucket=BUCKET)
    yield endpoint
    if server is not None:
        server.stop()


@dataclass
class Side:
    """What one test sees of the server: directly, and through the proxy that vitops is told of."""

    prefix: str
    proxy: Proxy
    direct: Any

    @property
    def url(self) -> str:
        return f"s3://{BUCKET}/{self.prefix}"

    def objects(self, folder: str = "", *, kind: type[S3Objects] = S3Objects, patience: Patience = BRIEF) -> S3Objects:
        """The objects below the prefix, or below a folder in it, as vitops sees them."""
        return kind(BUCKET, f"{self.prefix}/{folder}".rstrip("/"), patience=patience)

    def get(self, name: str) -> bytes:
        return self.direct.get_object(Bucket=BUCKET, Key=f"{self.prefix}/{name}")["Body"].read()

    def put(self, name: str, data: bytes) -> None:
        self.direct.put_object(Bucket=BUCKET, Key=f"{self.prefix}/{name}", Body=data)

    def delete(self, name: str) -> None:
        self.direct.delete_object(Bucket=BUCKET, Key=f"{self.prefix}/{name}")

    def names(self) -> list[str]:
        page = self.direct.list_objects_v2(Bucket=BUCKET, Prefix=f"{self.prefix}/")
        return [one["Key"].removeprefix(f"{self.prefix}/") for one in page.get("Contents", ())]

    def unfinished(self) -> list[str]:
        """Multipart uploads that are neither completed nor aborted."""
        found = self.direct.list_multipart_uploads(Bucket=BUCKET).get("Uploads", ())
        return [one["Key"] for one in found if one["Key"].startswith(self.prefix)]


@pytest.fixture
def s3(s3_server, monkeypatch, tmp_path_factory):
    """A fresh prefix; what the test's process asks of S3 goes through the proxy."""
    with Proxy(s3_server).running() as proxy:
        for name in ("AWS_PROFILE", "AWS_SESSION_TOKEN", "AWS_ENDPOINT_URL_S3", "AWS_REGION"):
            monkeypatch.delenv(name, raising=False)
        nothing = tmp_path_factory.mktemp("aws") / "empty"
        nothing.touch()
        files = dict.fromkeys(("AWS_CONFIG_FILE", "AWS_SHARED_CREDENTIALS_FILE"), str(nothing))
        for name, value in (ACCESS | files | {"AWS_ENDPOINT_URL": proxy.url}).items():
            monkeypatch.setenv(name, value)
        yield Side(f"test-{next(_numbers)}", proxy, _client(s3_server))


def _client(endpoint: str) -> Any:
    return boto3.client(
        "s3",
        endpoint_url=endpoint,
        aws_access_key_id="test",
        aws_secret_access_key="testsecret",
        region_name="us-east-1",
    )
