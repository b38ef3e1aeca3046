"""`steelyard serve`: a page over a run, for browsers on this machine alone; it writes nothing.

Every request carries the token of the address that was printed, and names this machine as its
host, so that no other user and no page of the web can ask.
"""

from __future__ import annotations

import hmac
import secrets
import socket
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import msgspec

from steelyard.errors import EnvironmentFault, SteelyardError, UsageError
from steelyard.report.live_run import LiveRun
from steelyard.report.page import read_asset, vega

HOST = "127.0.0.1"
POLICY = (
    "default-src 'none'; style-src 'self' 'unsafe-inline'; script-src 'self' 'unsafe-eval';"
    " connect-src 'self'; img-src data:; base-uri 'none'; form-action 'none';"
    " frame-ancestors 'none'"
)
HEADERS = {
    "Content-Security-Policy": POLICY,
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-store",
}
TYPES = {".html": "text/html", ".js": "text/javascript", ".css": "text/css"}


def require_server() -> None:
    """Raise EnvironmentFault if the library of the server is not installed."""
    if find_spec("starlette") is None or find_spec("uvicorn") is None:
        raise EnvironmentFault(
            "the page needs starlette and uvicorn, which are not installed",
            effect="no page is served",
            remedy="pip install 'steelyard[report]'",
        )


def listen(port: int) -> socket.socket:
    """Listen on a port of this machine; 0: one that is free.

    Raises:
        UsageError: another program has that port.
    """
    listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((HOST, port))
        listener.listen(64)  # so that the printed address can be opened at once
    except OSError as error:
        listener.close()
        raise UsageError(
            f"port {port} cannot be used: {error.strerror}",
            remedy="name another one with --port, or leave it out for one that is free",
        ) from None
    return listener


def serve(run: Path, listener: socket.socket, token: str, *, remote: bool = False) -> None:
    """Serve the page until Ctrl-C.

    Args:
        run: the run directory, which may be still written.
        listener: from `listen`.
        token: what requests have to carry.
        remote: whether texts may be fetched from addresses that the run names.
    """
    import uvicorn

    port = listener.getsockname()[1]
    app = make_app(LiveRun(run, remote=remote), token, (f"{HOST}:{port}", f"localhost:{port}"))
    config = uvicorn.Config(app, log_level="warning", access_log=False, lifespan="off")
    uvicorn.Server(config).run(sockets=[listener])


def new_token() -> str:
    """Return a token that nobody guesses."""
    return secrets.token_urlsafe(24)


def make_app(run: LiveRun, token: str, hosts: tuple[str, ...]) -> Any:  # noqa: ANN401 - Starlette
    """Return the application: its page, and what the page asks for as JSON."""
    from starlette.applications import Starlette
    from starlette.requests import Request
    from starlette.responses import Response
    from starlette.routing import Route

    def guarded(answer: Callable[[Request], Response]) -> Callable[[Request], Response]:
        def endpoint(request: Request) -> Response:
            given = request.query_params.get("token", "")
            if request.headers.get("host") not in hosts:
                return Response("this address is not served", 421, HEADERS)
            if not hmac.compare_digest(given.encode(), token.encode()):
                words = "open the address that `steelyard serve` printed, with its token"
                return Response(words, 403, HEADERS)
            return answer(request)

        return endpoint

    def asset(name: str, read: Callable[[], str]) -> Route:
        kind = TYPES[Path(name).suffix]
        path = "/" if name == "serve.html" else f"/{name}"

        def answer(_: Request) -> Response:
            return Response(read(), 200, HEADERS, kind)

        # A page's own files are nobody's secret, and its links have no token.
        return Route(path, guarded(answer) if path == "/" else answer)

    def ask(path: str, question: Callable[[dict[str, str]], Any]) -> Route:
        def answer(request: Request) -> Response:
            given = {key: value for key, value in request.query_params.items() if key != "token"}
            try:
                status, content = 200, question(given)
            except (SteelyardError, msgspec.ValidationError) as error:
                cause = error.cause if isinstance(error, SteelyardError) else str(error)
                remedy = error.remedy if isinstance(error, SteelyardError) else ""
                status, content = 400, {"error": cause, "remedy": remedy}
            return Response(msgspec.json.encode(content), status, HEADERS, "application/json")

        return Route(path, guarded(answer))

    return Starlette(
        routes=[
            asset("serve.html", lambda: read_asset("serve.html")),
            asset("report.css", lambda: read_asset("report.css")),
            asset("serve.js", lambda: read_asset("serve.js")),
            asset("vega.js", vega),
            ask("/api/run", lambda _: run.describe()),
            ask("/api/pairs", run.pairs),
            ask("/api/pair", run.pair),
            ask("/api/sql", run.sql),
        ]
    )
