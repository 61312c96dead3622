"""A bucket on an S3 server in this process (moto's), which can be away for a while and come back with its objects."""

from contextlib import contextmanager

import boto3
import pytest
from moto.server import ThreadedMotoServer

from vitops.store.patience import Patience
from vitops.store.s3 import S3Objects

NAME = "bucket"
HASTY = Patience(attempts=3, first_pause=0.05, connect_timeout=1.0, read_timeout=10.0)
"""For a server on this machine."""


class Bucket:
    """The server and its bucket; ``environment`` is what a process needs to reach it."""

    def __init__(self):
        self._server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
        self._server.start()
        _, self._port = self._server.get_host_and_port()
        self.environment = {
            "AWS_ENDPOINT_URL": f"http://127.0.0.1:{self._port}",
            "AWS_ACCESS_KEY_ID": "test",
            "AWS_SECRET_ACCESS_KEY": "test",
            "AWS_DEFAULT_REGION": "us-east-1",
            "AWS_EC2_METADATA_DISABLED": "true",
        }

    def make(self):
        """Create the bucket; the environment must be set."""
        boto3.client("s3").create_bucket(Bucket=NAME)

    def objects(self, prefix, kind=S3Objects):
        """The objects below a prefix."""
        return kind(NAME, prefix, patience=HASTY)

    @contextmanager
    def away(self):
        """The server does not answer for the block."""
        self._server.stop()
        try:
            yield
        finally:
            self._server = ThreadedMotoServer(ip_address="127.0.0.1", port=self._port, verbose=False)
            self._server.start()

    def close(self):
        """End the server."""
        self._server.stop()


@contextmanager
def running():
    """A bucket for the block, which this process and its children reach by their environment."""
    bucket = Bucket()
    with pytest.MonkeyPatch.context() as environment:
        for name, value in bucket.environment.items():
            environment.setenv(name, value)
        bucket.make()
        yield bucket
    bucket.close()
