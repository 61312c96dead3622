"""What boto3's failures mean: may they pass, and what can the user do.

Law: messages carry the error's code and our own words, never the server's text, which may quote keys and signatures.
"""

import os
from urllib.parse import urlsplit

from botocore.exceptions import (
    BotoCoreError,
    ClientError,
    ConnectionClosedError,
    ConnectTimeoutError,
    EndpointConnectionError,
    FlexibleChecksumError,
    IncompleteReadError,
    NoCredentialsError,
    PartialCredentialsError,
    ProfileNotFound,
    ReadTimeoutError,
    ResponseStreamingError,
    SSLError,
)
from urllib3.exceptions import HTTPError

from vitops.errors import VitopsError

S3_FAILURES = (ClientError, BotoCoreError, HTTPError)
"""Everything that boto3 raises when a request does not succeed."""
_SILENCE = (ConnectionClosedError, ConnectTimeoutError, EndpointConnectionError, ReadTimeoutError)
_CUT = (FlexibleChecksumError, IncompleteReadError, ResponseStreamingError, HTTPError)
_MAY_PASS = {
    "BadDigest",
    "ConditionalRequestConflict",
    "OperationAborted",
    "RequestLimitExceeded",
    "RequestTimeout",
    "SlowDown",
    "Throttling",
    "ThrottlingException",
    "TooManyRequests",
    "TooManyRequestsException",
    "XAmzContentSHA256Mismatch",
}
_EXPIRED = {"ExpiredToken", "ExpiredTokenException", "TokenRefreshRequired", "RequestExpired"}
_DENIED = "access is denied: give these credentials s3:GetObject, PutObject, DeleteObject and ListBucket there"
_UNKNOWN = "the server does not know these credentials: correct AWS_PROFILE, or the access key and secret key"
_ELSEWHERE = "the bucket is in another region: set AWS_DEFAULT_REGION to it"
_WAYS_OUT = {
    "NoSuchBucket": "there is no such bucket: create it, or correct VITOPS_STORE or AWS_ENDPOINT_URL",
    "AccessDenied": _DENIED,
    "403": _DENIED,
    "InvalidAccessKeyId": _UNKNOWN,
    "SignatureDoesNotMatch": _UNKNOWN,
    "InvalidToken": _UNKNOWN,
    "RequestTimeTooSkewed": "this machine's clock differs too much from the server's: set the clock",
    "PermanentRedirect": _ELSEWHERE,
    "AuthorizationHeaderMalformed": _ELSEWHERE,
    "IllegalLocationConstraintException": _ELSEWHERE,
    **dict.fromkeys(_EXPIRED, "the credentials have expired: renew them"),
}


def code_of(error: Exception) -> str:
    """The S3 error code of an answer, e.g. ``NoSuchKey``; the exception's name if there was none."""
    if isinstance(error, ClientError):
        return str(error.response.get("Error", {}).get("Code", ""))
    return type(error).__name__


def status_of(error: Exception) -> int | None:
    """The HTTP status of an answer; None if there was none."""
    if isinstance(error, ClientError):
        status: int | None = error.response.get("ResponseMetadata", {}).get("HTTPStatusCode")
        return status
    return None


def expired(error: Exception) -> bool:
    """Whether the credentials were refused for their age."""
    return code_of(error) in _EXPIRED


def may_pass(error: Exception) -> bool:
    """Whether the same request may succeed a little later."""
    status = status_of(error)
    if status is not None:
        return status == 429 or (status >= 500 and status != 501) or code_of(error) in _MAY_PASS
    return isinstance(error, (*_SILENCE, *_CUT)) and not isinstance(error, SSLError)


def explained(error: Exception, what: str) -> VitopsError:
    """The error for the user; ``what``: the object or bucket, as messages name it."""
    return VitopsError(f"{what}: {_way_out(error)}. What was published before is unchanged; then run again.")


def _way_out(error: Exception) -> str:
    code, status = code_of(error), status_of(error)
    if code in _WAYS_OUT:
        return _WAYS_OUT[code]
    if isinstance(error, ProfileNotFound):
        return "boto3 finds no such profile: correct AWS_PROFILE, or write the profile to ~/.aws/config"
    if isinstance(error, (NoCredentialsError, PartialCredentialsError)):
        return "boto3 finds no credentials: set AWS_PROFILE, or AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY"
    if isinstance(error, SSLError):
        return f"{_server()} shows a certificate that is not trusted: correct AWS_ENDPOINT_URL, or set AWS_CA_BUNDLE"
    if isinstance(error, _SILENCE):
        return f"{_server()} does not answer ({code}): correct AWS_ENDPOINT_URL, or wait until it is reachable"
    if isinstance(error, _CUT):
        return f"{_server()} breaks off its answers ({code}): look into the connection"
    if status is None:
        return f"boto3 cannot ask ({code}): correct its settings (AWS_*, ~/.aws)"
    return f"{_server()} refuses with {code} (status {status}), also when asked again: ask whoever runs it"


def _server() -> str:
    """The server that was asked, without what a URL may hold besides host and port."""
    endpoint = os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL")
    try:
        place = urlsplit(endpoint or "")
        return f"the server {place.hostname}{f':{place.port}' if place.port else ''}" if place.hostname else "S3"
    except ValueError:
        return "the server"
