"""Search server: one of our engines behind the Search-R1 wire format, with FastAPI on uvicorn.

POST /retrieve answers queries, GET /health answers {"status": "ok"}. Every error is JSON: {"error": reason}.
"""

import json
import logging
import socket
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from hiexp_verl.errors import HiExpError
from hiexp_verl.search import SearchEngine, SearchFailed
from hiexp_verl.search.http import write_reply

if TYPE_CHECKING:
    import fastapi
    import uvicorn

logger = logging.getLogger(__name__)

MAX_BODY_BYTES = 4 << 20
MAX_TOP_K = 1000
MAX_PASSAGES = 5000  # of one reply, for all its queries: a client of ours asks for 64 queries at a time
KEEP_ALIVE_SECONDS = 300  # longer than a training step, so that the client's pooled connections survive it
STOP_SECONDS = 10  # for requests in flight


class RetrieveRequest(BaseModel):
    """Body of a request; other keys (`return_scores`) are ignored."""

    model_config = ConfigDict(strict=True)

    queries: list[str]
    topk: int | None = Field(None, ge=0, le=MAX_TOP_K)  # 0 and none: 3, as in Search-R1's server


def listen(host: str, port: int) -> socket.socket:
    """Return a listening socket; port 0 takes a free one.

    Raises:
        HiExpError: the address is taken or belongs to another machine.
    """
    try:
        return socket.create_server((host, port))
    except (OSError, OverflowError) as error:
        raise HiExpError(f"cannot listen on {host}:{port} ({error}); choose another port") from error


def make_server(engine: SearchEngine) -> "uvicorn.Server":
    """Return a server for `engine`; `run(sockets=[listen(...)])` serves until `should_exit` is set or a signal arrives."""
    import uvicorn

    timeouts: dict[str, Any] = {"timeout_keep_alive": KEEP_ALIVE_SECONDS, "timeout_graceful_shutdown": STOP_SECONDS}
    return uvicorn.Server(uvicorn.Config(_app(engine), log_config=None, log_level="warning", **timeouts))


def serve(engine: SearchEngine, listener: socket.socket) -> None:
    """Serve until interrupted; requests in flight are answered first."""
    try:
        make_server(engine).run(sockets=[listener])
    except KeyboardInterrupt:
        logger.info("stopped")


def _app(engine: SearchEngine) -> "fastapi.FastAPI":
    from fastapi import FastAPI, Request, Response
    from fastapi.concurrency import run_in_threadpool
    from starlette.exceptions import HTTPException
    from starlette.requests import ClientDisconnect

    def reply(status: int, value: dict[str, Any]) -> Response:
        return Response(json.dumps(value), status, media_type="application/json")

    def refuse(_: Request, error: Exception) -> Response:
        return reply(getattr(error, "status_code", 400), {"error": str(error)})

    app = FastAPI(openapi_url=None)  # no /docs: that page loads scripts from elsewhere
    for error_type in (HTTPException, ClientDisconnect):
        app.add_exception_handler(error_type, refuse)

    @app.get("/health")
    async def health() -> Response:
        return reply(200, {"status": "ok"})

    @app.post("/retrieve")
    async def retrieve(request: Request) -> Response:
        body = bytearray()
        async for chunk in request.stream():
            body += chunk
            if len(body) > MAX_BODY_BYTES:
                return reply(413, {"error": f"the body has more than {MAX_BODY_BYTES} bytes; send fewer queries"})
        try:
            wanted = RetrieveRequest.model_validate_json(bytes(body))  # whatever its content type
            top_k = wanted.topk or 3
            if len(wanted.queries) * top_k > MAX_PASSAGES:
                return reply(
                    413, {"error": f"{len(wanted.queries)} queries x topk {top_k} are more than {MAX_PASSAGES} passages; ask for fewer"}
                )
            return reply(200, write_reply(await run_in_threadpool(engine.search, wanted.queries, top_k)))
        except ValidationError as error:
            return reply(400, {"error": "; ".join(f"{'.'.join(map(str, e['loc'])) or 'body'}: {e['msg']}" for e in error.errors()[:3])})
        except SearchFailed as error:
            return reply(503, {"error": error.reason})

    return app
