"""Serve one of our engines in the Search-R1 wire format, with the standard library."""

import json
import logging
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from hiexp_verl.errors import HiExpError
from hiexp_verl.search.base import SearchEngine, SearchFailed
from hiexp_verl.search.http import write_reply

logger = logging.getLogger(__name__)

MAX_BODY_BYTES = 4 << 20
MAX_TOP_K = 1000


def make_server(engine: SearchEngine, host: str, port: int) -> ThreadingHTTPServer:
    """Bind a server that answers POST /retrieve and GET /health; the caller runs `serve_forever`. Port 0 takes a free one.

    Raises:
        HiExpError: the address is taken or not ours.
    """

    class Handler(_Handler):
        pass

    Handler.engine = engine
    try:
        server = ThreadingHTTPServer((host, port), Handler)
    except (OSError, OverflowError) as error:
        raise HiExpError(f"cannot listen on {host}:{port} ({error}); choose another port") from error
    server.daemon_threads = True
    return server


def serve(engine: SearchEngine, host: str = "127.0.0.1", port: int = 8000) -> None:
    """Serve until interrupted."""
    server = make_server(engine, host, port)
    logger.info("searching at http://%s:%d/retrieve", host, server.server_address[1])
    try:
        server.serve_forever()
    except KeyboardInterrupt:
        logger.info("stopped")
    finally:
        server.server_close()


class _Handler(BaseHTTPRequestHandler):
    engine: SearchEngine
    protocol_version = "HTTP/1.1"  # keeps connections open for the client's pool
    wbufsize = -1  # header and body in one packet: apart, Nagle and delayed acknowledgement cost 40 ms a call
    disable_nagle_algorithm = True
    timeout = 300  # seconds an idle connection is kept

    def do_GET(self) -> None:
        self._reply(200 if self.path == "/health" else 404, {"status": "ok"} if self.path == "/health" else {"error": "POST /retrieve"})

    def do_POST(self) -> None:
        body = self._body()
        if body is None:
            return
        try:
            queries, top_k = _read_request(body)
            self._reply(200, write_reply(self.engine.search(queries, top_k)))
        except ValueError as error:
            self._reply(400, {"error": str(error)})
        except SearchFailed as error:
            self._reply(503, {"error": error.reason})

    def log_message(self, format: str, *args: Any) -> None:
        logger.debug(format, *args)

    def _body(self) -> bytes | None:
        length = self.headers.get("Content-Length", "")
        if not length.isdecimal() or int(length) > MAX_BODY_BYTES:
            self.close_connection = True  # what follows on this connection cannot be told from a new request
            self._reply(413, {"error": f"give a Content-Length of at most {MAX_BODY_BYTES}"})
            return None
        return self.rfile.read(int(length))

    def _reply(self, status: int, value: dict[str, Any]) -> None:
        content = json.dumps(value).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)


def _read_request(body: bytes) -> tuple[list[str], int]:
    try:
        request = json.loads(body)
    except RecursionError as error:
        raise ValueError("the body is nested too deeply") from error
    queries = request.get("queries") if isinstance(request, dict) else None
    if not isinstance(queries, list) or not all(isinstance(query, str) for query in queries):
        raise ValueError("'queries' must be a list of texts")
    top_k = request.get("topk") or 3  # what Search-R1's server does
    if not isinstance(top_k, int) or not 1 <= top_k <= MAX_TOP_K:
        raise ValueError(f"'topk' must be a whole number from 1 to {MAX_TOP_K}")
    return queries, top_k
