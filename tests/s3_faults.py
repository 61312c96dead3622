"""A proxy before an S3 server that brings one kind of fault at a time, and counts what is asked.

Laws: what no rule matches is passed on unchanged, headers included, so signatures stay right; a rule strikes ``times``
requests whose method and path match and then rests; ``asked`` lists every request, the struck ones included.
"""

import http.client
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import urlsplit

DROPPED = {"connection", "transfer-encoding", "content-length", "keep-alive", "date", "server"}
EVERY_TIME = 1_000_000


@dataclass
class Answer:
    """What goes back to the client; ``announced``: its Content-Length where that is a lie."""

    status: int
    headers: list[tuple[str, str]]
    body: bytes
    announced: int | None = None


Strike = Callable[[Callable[..., Answer]], Answer | None]


@dataclass
class Rule:
    """Whom it strikes, how often, and how: ``strike(forward)`` gives the answer, None for a reset connection.

    No method means every one.
    """

    method: str
    path: str
    strike: Strike
    times: int = EVERY_TIME


def error(status: int, code: str) -> Strike:
    """The server refuses, and nothing is done."""
    text = f"<?xml version='1.0'?><Error><Code>{code}</Code><Message>key AKIASECRET told</Message></Error>"
    return lambda forward: Answer(status, [("Content-Type", "application/xml")], text.encode())


def reset(forward: Callable[..., Answer]) -> None:
    """The connection breaks before anything is done."""


def lost(forward: Callable[..., Answer]) -> None:
    """All is done, and the answer does not arrive."""
    forward()


def twice(forward: Callable[..., Answer]) -> Answer:
    """The request arrives twice; the client hears of the second."""
    forward()
    return forward()


def cut(forward: Callable[..., Answer]) -> Answer:
    """The body breaks off half-way."""
    answer = forward()
    return Answer(answer.status, answer.headers, answer.body[: len(answer.body) // 2], announced=len(answer.body))


def flipped(forward: Callable[..., Answer]) -> Answer:
    """One bit of the body is another, and the server's own checksum does not tell."""
    answer = forward()
    body = bytearray(answer.body)
    body[len(body) // 2] ^= 1
    headers = [(name, value) for name, value in answer.headers if not name.lower().startswith("x-amz-checksum")]
    return Answer(answer.status, headers, bytes(body))


def spoiled(forward: Callable[..., Answer]) -> Answer:
    """One bit of the request's body is another when it arrives."""
    return forward(spoiled=True)


def slow(seconds: float) -> Strike:
    """The answer comes late."""

    def strike(forward: Callable[..., Answer]) -> Answer:
        time.sleep(seconds)
        return forward()

    return strike


FAULTS = {
    "503": error(503, "SlowDown"),
    "slow": slow(0.5),
    "truncated": cut,
    "duplicate": twice,
    "lost": lost,
    "expired": error(400, "ExpiredToken"),
}
"""What an operation must survive if it happens to a request once."""


class Proxy:
    """The proxy of one test; ``url`` is where it listens."""

    def __init__(self, server: str) -> None:
        self.asked: list[tuple[str, str]] = []
        self.rules: list[Rule] = []
        self._server, self._guard = urlsplit(server), threading.Lock()
        proxy = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            disable_nagle_algorithm = True

            def _serve(self) -> None:
                proxy.serve(self)

            do_GET = do_PUT = do_POST = do_DELETE = do_HEAD = _serve

            def log_message(self, *_: object) -> None:
                return

        self._http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._http.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._http.server_address[1]}"

    @contextmanager
    def running(self) -> Iterator["Proxy"]:
        thread = threading.Thread(target=self._http.serve_forever, args=(0.02,), daemon=True)
        thread.start()
        try:
            yield self
        finally:
            self._http.shutdown()
            self._http.server_close()
            thread.join()

    def strike(self, method: str, path: str, how: Strike, times: int = EVERY_TIME) -> None:
        """From now on: the first matching rule with strikes left is used."""
        self.rules.append(Rule(method, path, how, times))

    @contextmanager
    def away(self) -> Iterator[None]:
        """Nobody is answered for the block."""
        rules, self.rules = self.rules, [Rule("", "", reset)]
        try:
            yield
        finally:
            self.rules = rules

    def count(self, method: str, path: str = "") -> int:
        """How often that was asked."""
        return sum(one == method and path in two for one, two in self.asked)

    def forget(self) -> None:
        """No rules, nothing asked."""
        self.rules.clear()
        self.asked.clear()

    def serve(self, client: BaseHTTPRequestHandler) -> None:
        body = self._body(client)
        rule = self._rule(client.command, client.path)

        def forward(*, spoiled: bool = False) -> Answer:
            return self._forward(client, body[:-1] + bytes([body[-1] ^ 1]) if spoiled else body)

        try:
            answer = forward() if rule is None else rule.strike(forward)
        except ConnectionError:  # the server ended before a slow answer was due
            answer = None
        if answer is None:
            client.close_connection = True
            client.connection.close()
            return
        with suppress(ConnectionError):  # who was told late has gone
            self._reply(client, answer)

    def _rule(self, method: str, path: str) -> Rule | None:
        with self._guard:
            self.asked.append((method, path))
            for rule in self.rules:
                if rule.times and rule.method in ("", method) and rule.path in path:
                    rule.times -= 1
                    return rule
        return None

    def _body(self, client: BaseHTTPRequestHandler) -> bytes:
        if client.headers.get("Transfer-Encoding", "").lower() != "chunked":
            return client.rfile.read(int(client.headers.get("Content-Length") or 0))
        pieces = []
        while size := int(client.rfile.readline().split(b";")[0], 16):
            pieces.append(client.rfile.read(size))
            client.rfile.readline()
        client.rfile.readline()
        return b"".join(pieces)

    def _forward(self, client: BaseHTTPRequestHandler, body: bytes) -> Answer:
        connection = http.client.HTTPConnection(self._server.hostname or "", self._server.port, timeout=60)
        try:
            dropped = {"expect", "transfer-encoding", "content-length", "connection"}
            headers = {name: value for name, value in client.headers.items() if name.lower() not in dropped}
            headers["Content-Length"] = str(len(body))
            connection.request(client.command, client.path, body=body, headers=headers)
            answer = connection.getresponse()
            kept = [(name, value) for name, value in answer.getheaders() if name.lower() not in DROPPED]
            size = answer.getheader("Content-Length") if client.command == "HEAD" else None
            return Answer(answer.status, kept, answer.read(), announced=None if size is None else int(size))
        finally:
            connection.close()

    def _reply(self, client: BaseHTTPRequestHandler, answer: Answer) -> None:
        client.send_response_only(answer.status)
        for name, value in answer.headers:
            client.send_header(name, value)
        client.send_header("Content-Length", str(len(answer.body) if answer.announced is None else answer.announced))
        client.end_headers()
        client.wfile.write(answer.body)
        if answer.announced is not None:
            client.close_connection = True
