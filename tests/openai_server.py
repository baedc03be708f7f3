"""A small OpenAI-compatible server in this process: scripted answers, recorded requests."""

from __future__ import annotations

import json
import socket
import struct
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Literal

USAGE = {
    "prompt_tokens": 11,
    "completion_tokens": 3,
    "total_tokens": 14,
    "prompt_tokens_details": {"cached_tokens": 8},
}


@dataclass
class OpenAIServer:
    """What it answers, and what it was asked.

    Attributes:
        pieces: of each answer's text. pause: seconds between them.
        status, error: instead of an answer, when status is not 200.
        facts: of its model under /v1/models.
        requests: (path, body, headers) of each POST.
        break_off: how the connection ends after the first piece, if so.
        vanished: set when a client went away during an answer.
    """

    pieces: list[str] = field(default_factory=lambda: ["Paris", " is", " it."])
    pause: float = 0.0
    model: str = "served"
    facts: dict[str, Any] = field(default_factory=lambda: {"max_model_len": 4096})
    status: int = 200
    error: dict[str, Any] = field(default_factory=dict)
    finish_reason: str = "stop"
    key: str = ""
    requests: list[tuple[str, dict[str, Any], dict[str, str]]] = field(default_factory=list)
    vanished: threading.Event = field(default_factory=threading.Event)
    break_off: Literal["", "ended", "reset"] = ""
    page: bytes | None = None
    url: str = ""

    def events(self, path: str) -> Iterator[dict[str, Any]]:
        """The parts of a streamed answer."""
        chat = path.endswith("chat/completions")

        def event(text: str | None, reason: str | None = None) -> dict[str, Any]:
            said = {"delta": {"content": text, "role": "assistant"}} if chat else {"text": text}
            choice = {"index": 0, "finish_reason": reason, **said}
            kind = "chat.completion.chunk" if chat else "text_completion"
            return {"id": "1", "object": kind, "model": self.model, "choices": [choice]}

        yield from (event(piece) for piece in self.pieces)
        yield event("", self.finish_reason)
        yield {**event(""), "choices": [], "usage": USAGE}

    def whole(self) -> dict[str, Any]:
        """A chat answer in one piece."""
        message = {"role": "assistant", "content": "".join(self.pieces)}
        choice = {"index": 0, "finish_reason": self.finish_reason, "message": message}
        return {
            "id": "1",
            "object": "chat.completion",
            "model": self.model,
            "choices": [choice],
            "usage": USAGE,
        }


@contextmanager
def openai_server(**answers: Any) -> Iterator[OpenAIServer]:
    """Serve on a free port of this machine until the block ends."""
    script = OpenAIServer(**answers)

    class Handler(BaseHTTPRequestHandler):
        def log_message(self, *_args: object) -> None:
            """Keep quiet."""

        def do_GET(self) -> None:
            if not self._allowed():
                return
            model = {"id": script.model, "object": "model", "created": 1, "owned_by": "x"}
            self._json(200, {"object": "list", "data": [{**model, **script.facts}]})

        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            script.requests.append((self.path, body, dict(self.headers)))
            if not self._allowed():
                return
            if script.status != 200:
                self._json(script.status, {"error": script.error})
            elif body.get("stream"):
                self._stream()
            else:
                self._json(200, script.whole())

        def _allowed(self) -> bool:
            if script.page is not None:
                self._send(200, "text/html", script.page)
                return False
            if script.key and self.headers["Authorization"] != f"Bearer {script.key}":
                self._json(401, {"error": {"message": "wrong key", "code": "invalid_api_key"}})
                return False
            return True

        def _stream(self) -> None:
            self.send_response(200)
            self.send_header("Content-Type", "text/event-stream")
            self.end_headers()
            try:
                for event in script.events(self.path):
                    self.wfile.write(f"data: {json.dumps(event)}\n\n".encode())
                    self.wfile.flush()
                    if script.break_off == "reset":  # what a killed process leaves
                        time.sleep(0.2)  # a reset throws away what was not read yet
                        linger = struct.pack("ii", 1, 0)
                        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
                        self.connection.close()
                    if script.break_off:
                        return
                    time.sleep(script.pause)
                self.wfile.write(b"data: [DONE]\n\n")
            except OSError:
                script.vanished.set()

        def _json(self, status: int, value: dict[str, Any]) -> None:
            self._send(status, "application/json", json.dumps(value).encode())

        def _send(self, status: int, kind: str, body: bytes) -> None:
            self.send_response(status)
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    script.url = f"http://127.0.0.1:{server.server_address[1]}/v1"
    try:
        yield script
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
