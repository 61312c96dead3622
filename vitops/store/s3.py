"""Objects in an S3 bucket, through boto3.

Laws: what comes back is judged by our own SHA-256, never by a checksum the server keeps (some ignore them);
``create`` is one PutObject with ``If-None-Match: *``, never a multipart upload (some ignore the condition there), and a
412 is looked into: the bytes may be our own, put by a try whose answer was lost. One loop repeats what may pass (no
answer, 429, 5xx, a body cut short, bytes changed on the way) with growing random pauses; boto3's own repetitions are
off, or the two bounds would multiply, and it repeats neither a 429 nor a cut body. Expired credentials are read again
once, for somebody may have renewed them. Endpoint, region and credentials come from boto3's environment and files.
"""

import base64
import hashlib
import threading
from collections.abc import Callable, Iterator
from contextlib import closing, suppress
from pathlib import Path
from typing import Any, TypeVar

import boto3
import botocore.session
from botocore.config import Config

from vitops.errors import VerificationError, VitopsError
from vitops.store import durable
from vitops.store.patience import Patience
from vitops.store.s3_errors import S3_FAILURES, code_of, expired, explained, may_pass, status_of
from vitops.store.side_by_side import WIDTH, side_by_side

T = TypeVar("T")
PART = 16 << 20
"""Bytes of a part, and the largest object that is put at once."""
MOST_PARTS = 10_000
_NOT_THERE = {"NoSuchKey", "404"}


class S3Objects:
    """The objects below ``prefix`` (without slashes at its ends; may be empty) of ``bucket``."""

    def __init__(self, bucket: str, prefix: str, *, patience: Patience | None = None) -> None:
        self._bucket, self._prefix = bucket, f"{prefix}/" if prefix else ""
        self._patience = patience or Patience()
        self._guard = threading.Lock()
        self._made: Any = None

    @property
    def url(self) -> str:
        """``s3://bucket/prefix``."""
        return f"s3://{self._bucket}/{self._prefix}".rstrip("/")

    @property
    def identity(self) -> str:
        """The server's address and the URL."""
        return self._call("", lambda s3: f"{s3.meta.endpoint_url} {self.url}")

    def read(self, name: str) -> bytes | None:
        """See ``Objects``."""
        return self._got(name, b"".join)

    def sha256(self, name: str) -> str | None:
        """See ``Objects``."""
        return self._got(name, _digest)

    def download(self, name: str, target: Path, *, sha256: str, aside: Path | None = None) -> None:
        """See ``Objects``."""

        def kept(pieces: Iterator[bytes]) -> str:
            found = durable.pour(pieces, target, expected=sha256, aside=aside, mode=0o444, sync=False)
            if found != sha256:
                raise _OtherBytes(found)
            return found

        try:
            found = self._got(name, kept)
        except _OtherBytes as error:
            raise VerificationError(
                f"{self._shown(name)} is not what was published: expected SHA-256 {sha256}, found {error}. "
                "Run the pipeline that made it again: the stage is executed and the object written anew."
            ) from None
        if found is None:
            raise FileNotFoundError(self._shown(name))

    def upload(self, name: str, source: Path, *, sha256: str) -> None:
        """See ``Objects``."""
        if source.stat().st_size > PART:
            self._upload_parts(name, source, sha256)
            return
        data = source.read_bytes()
        if hashlib.sha256(data).hexdigest() != sha256:
            raise _changed(source, sha256)
        self.write(name, data)

    def create(self, name: str, data: bytes) -> bool:
        """See ``Objects``."""
        try:
            self._insist(lambda s3: s3.put_object(**self._named(name), **_body(data), IfNoneMatch="*"))
        except S3_FAILURES as error:
            if status_of(error) != 412:
                raise explained(error, self._shown(name)) from None
            return self.read(name) == data
        return True

    def write(self, name: str, data: bytes) -> None:
        """See ``Objects``."""
        self._call(name, lambda s3: s3.put_object(**self._named(name), **_body(data)))

    def remove(self, name: str) -> None:
        """See ``Objects``."""
        self._call(name, lambda s3: s3.delete_object(**self._named(name)))

    def sizes(self, prefix: str, *, after: str = "") -> dict[str, int]:
        """See ``Objects``."""
        found: dict[str, int] = {}
        asked = {"Bucket": self._bucket, "Prefix": self._prefix + prefix}
        if after:
            asked["StartAfter"] = self._prefix + after
        while True:
            page = self._call(prefix, lambda s3: s3.list_objects_v2(**asked))
            found |= {one["Key"].removeprefix(self._prefix): one["Size"] for one in page.get("Contents", ())}
            if not page.get("IsTruncated"):
                return found
            asked["ContinuationToken"] = page["NextContinuationToken"]

    def _upload_parts(self, name: str, source: Path, sha256: str) -> None:
        begun = self._call(name, lambda s3: s3.create_multipart_upload(**self._named(name)))
        upload = {**self._named(name), "UploadId": begun["UploadId"]}
        try:
            parts = self._put_parts(name, source, sha256, upload)
            self._complete(name, sha256, {**upload, "MultipartUpload": {"Parts": parts}})
        except BaseException:
            self._abort(upload)
            raise

    def _put_parts(self, name: str, source: Path, sha256: str, upload: dict[str, Any]) -> list[dict[str, Any]]:
        def put(part: tuple[int, bytes]) -> dict[str, Any]:
            number, data = part
            made = self._call(name, lambda s3: s3.upload_part(**upload, **_body(data), PartNumber=number))
            return {"PartNumber": number, "ETag": made["ETag"]}

        def pieces(size: int) -> Iterator[bytes]:
            with source.open("rb") as stream:
                while data := stream.read(size):
                    hasher.update(data)
                    yield data

        hasher, size = hashlib.sha256(), max(PART, -(-source.stat().st_size // MOST_PARTS))
        parts = list(side_by_side(put, enumerate(pieces(size), start=1)))
        if hasher.hexdigest() != sha256:
            raise _changed(source, sha256)
        return parts

    def _complete(self, name: str, sha256: str, upload: dict[str, Any]) -> None:
        try:
            self._insist(lambda s3: s3.complete_multipart_upload(**upload))
        except S3_FAILURES as error:
            done = code_of(error) == "NoSuchUpload" and self.sha256(name) == sha256  # the first answer was lost
            if not done:
                raise explained(error, self._shown(name)) from None

    def _abort(self, upload: dict[str, Any]) -> None:
        """Give the parts up; where even that fails, a lifecycle rule for incomplete uploads removes them."""
        with suppress(*S3_FAILURES):
            self._client().abort_multipart_upload(**upload)

    def _got(self, name: str, take: Callable[[Iterator[bytes]], T]) -> T | None:
        """What ``take`` makes of the object's bytes, asked for again whenever they do not come whole."""

        def get(s3: Any) -> T:
            with closing(s3.get_object(**self._named(name))["Body"]) as body:
                return take(body.iter_chunks(durable.CHUNK))

        try:
            return self._insist(get)
        except S3_FAILURES as error:
            if code_of(error) == "NoSuchKey":
                return None
            raise explained(error, self._shown(name)) from None

    def _call(self, name: str, ask: Callable[[Any], T]) -> T:
        try:
            return self._insist(ask)
        except S3_FAILURES as error:
            raise explained(error, self._shown(name)) from None

    def _insist(self, ask: Callable[[Any], T]) -> T:
        """Ask, again while the failure may pass, and once more with credentials read anew if they have expired."""

        def insist() -> T:
            return self._patience.insist(
                lambda: ask(self._client()), may_pass=lambda error: isinstance(error, _OtherBytes) or may_pass(error)
            )

        try:
            return insist()
        except S3_FAILURES as error:
            if not expired(error):
                raise
        with self._guard:
            self._made = None
        return insist()

    def _client(self) -> Any:
        with self._guard:
            if self._made is None:
                self._made = self._connected()
            return self._made

    def _connected(self) -> Any:
        core = botocore.session.get_session()
        # A server of one's own seldom has a name for every bucket; who has another one says so in ~/.aws/config.
        own = core.get_scoped_config().get("s3", {})
        style = own.get("addressing_style", "path") if isinstance(own, dict) else "path"
        config = Config(
            retries={"mode": "standard", "total_max_attempts": 1},
            connect_timeout=self._patience.connect_timeout,
            read_timeout=self._patience.read_timeout,
            max_pool_connections=4 * WIDTH,
            s3={"addressing_style": style},
        )
        try:
            return boto3.session.Session(botocore_session=core).client("s3", config=config)
        except ValueError:  # it shows the whole address, a password in it too
            raise VitopsError(
                "AWS_ENDPOINT_URL (or endpoint_url in ~/.aws/config) is no address: it must be like https://host:port"
            ) from None

    def _named(self, name: str) -> dict[str, str]:
        return {"Bucket": self._bucket, "Key": self._prefix + name}

    def _shown(self, name: str) -> str:
        return f"s3://{self._bucket}/{self._prefix}{name}"


class _OtherBytes(Exception):
    """The object's bytes are others than asked for; holds their SHA-256."""


def _digest(pieces: Iterator[bytes]) -> str:
    hasher = hashlib.sha256()
    for piece in pieces:
        hasher.update(piece)
    return hasher.hexdigest()


def _body(data: bytes) -> dict[str, Any]:
    """The bytes with their MD5, the one checksum that every server compares."""
    return {"Body": data, "ContentMD5": base64.b64encode(hashlib.md5(data, usedforsecurity=False).digest()).decode()}


def _changed(source: Path, sha256: str) -> VerificationError:
    return VerificationError(f"{source} is not what it was when it was hashed ({sha256}): run again.")
