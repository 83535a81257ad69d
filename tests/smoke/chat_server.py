"""A real HTTP server that answers as vLLM's and LLaMA-Factory's do, or misbehaves in one named way."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

KEY = "the-right-key"
_LONGEST = 2000


def tokens(text: str) -> list[str]:
    """Words with the space before them: what joins to the text again."""
    first, *rest = text.split(" ")
    return [first, *(f" {word}" for word in rest)]


class ChatServer(ThreadingHTTPServer):
    """Knows the answers to some questions; `vllm` decides which of the two it is like."""

    daemon_threads = True
    request_queue_size = 64

    def __init__(
        self, answers: dict[str, str], *, vllm: bool, fault: str, pause: float = 0.0, port: int = 0, key: str = KEY
    ) -> None:
        super().__init__(("127.0.0.1", port), Handler)
        self.answers, self.vllm, self.fault, self.pause, self.key = answers, vllm, fault, pause, key
        self.models = ("tuned", "base") if vllm else ("tuned",)
        self.lock = threading.Lock()
        self.running = self.highest = self.succeeded = self.generated = 0
        self.released, self.crowded = threading.Event(), threading.Event()
        # How often /metrics was read.
        self.looks = 0

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that hung up is no news."""


@contextmanager
def serving(answers: dict[str, str], *, vllm: bool = True, fault: str = "", pause: float = 0.0) -> Iterator[ChatServer]:
    """The server, in a thread of its own."""
    server = ChatServer(answers, vllm=vllm, fault=fault, pause=pause)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    try:
        yield server
    finally:
        server.released.set()
        server.shutdown()
        thread.join()
        server.server_close()


class Handler(BaseHTTPRequestHandler):
    """One request."""

    protocol_version = "HTTP/1.1"
    # Otherwise each answer waits 40 ms for the acknowledgement of its headers.
    disable_nagle_algorithm = True
    server: ChatServer

    def log_message(self, *_: object) -> None:
        pass

    def do_GET(self) -> None:
        server, fault = self.server, self.server.fault
        if self.path == "/health":
            self._text(200 if server.vllm and fault != "unhealthy" else 404, "")
        elif self.path == "/openapi.json":
            self._text(404 if server.vllm else 200, "{}")
        elif self.path == "/metrics":
            server.looks += 1
            if fault == "counts late" and server.looks == 3:
                server.running = 0
            busy = 3 if fault == "keeps working" else server.running
            text = (
                "# HELP vllm:num_requests_running requests\n"
                f'vllm:num_requests_running{{model_name="base"}} {busy}.0\n'
                f'vllm:num_requests_waiting{{model_name="base"}} 0.0\n'
                f'vllm:request_success_total{{finished_reason="stop"}} {server.succeeded - 1}.0\n'
                f'vllm:request_success_total{{finished_reason="length"}} 1.0\n'
                f"vllm:generation_tokens_total {0 if fault == 'does not count' else server.generated}\n"
            )
            self._text(200 if server.vllm else 404, "broken\n" if fault == "unreadable metrics" else text)
        elif self.path == "/v1/models":
            if self._allowed():
                names = [*server.models, *(["another"] if fault == "another model" else [])]
                self._json(
                    200,
                    {
                        "object": "list",
                        "data": [{"id": name, "object": "model", "created": 1, "owned_by": "x"} for name in names],
                    },
                )
        else:
            self._text(404, "not found")

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        if not self._allowed():
            return
        server, fault = self.server, self.server.fault
        if fault == "hangs":
            server.released.wait(30)
            return
        chat = self.path == "/v1/chat/completions"
        if not chat and not (server.vllm and self.path == "/v1/completions"):
            self._json(404, {"detail": "Not Found"})
            return
        prompt = body["messages"][0]["content"] if chat else body["prompt"]
        if server.vllm and body["model"] not in server.models and fault != "any model":
            self._json(404, {"error": {"message": f"The model `{body['model']}` does not exist."}})
        elif len(prompt) > _LONGEST and fault != "takes everything":
            if fault == "dies":
                server.fault = "hangs"
            message = {"error": {"message": "maximum context length is 512 tokens"}}
            self._json(400 if server.vllm and fault != "breaks down" else 500, message)
            # As uvicorn after an error that nobody caught: it hangs up, and no header says so.
            self.close_connection = not server.vllm
        else:
            with server.lock:
                server.running += 1
                crowd = server.highest = max(server.highest, server.running)
            try:
                self._answer(body, prompt, chat=chat, crowd=crowd)
            finally:
                with server.lock:
                    server.running -= 1

    def _answer(self, body: dict[str, Any], prompt: str, *, chat: bool, crowd: int) -> None:
        server, fault = self.server, self.server.fault
        (text,) = [answer for question, answer in server.answers.items() if question in prompt] or ["?"]
        if body["model"] == "base":
            text = "yt"
        if fault == "knows nothing" or (fault == "confuses many" and crowd > 8) or (fault == "half completions" and not chat):
            text = text[: len(text) // 2]
        if fault == "confuses many":
            # Each waits until there are many: how fast the machine starts them must not matter.
            if crowd > 8:
                server.crowded.set()
            server.crowded.wait(30)
        said, finish = tokens(text), "stop"
        if body.get("ignore_eos"):
            said = (said * body["max_tokens"])[: body["max_tokens"]]
        for stop in body.get("stop") or []:
            if fault != "never stops":
                said = tokens("".join(said).partition(stop)[0])
        if len(said) > body.get("max_tokens", len(said)) and fault != "no limit":
            said, finish = said[: body["max_tokens"]], "stop" if fault == "unknown end" else "length"
        with server.lock:
            server.succeeded += 1
            server.generated += len(said)
        if body.get("stream"):
            self._stream(body["model"], said, finish)
            return
        choice: dict[str, Any] = {"index": 0, "finish_reason": finish}
        choice |= {"message": {"role": "assistant", "content": "".join(said)}} if chat else {"text": "".join(said)}
        if body.get("logprobs") and server.vllm and fault != "no logprobs":
            choice["logprobs"] = {"content": [self._likely(token) for token in said]}
        kind = "chat.completion" if chat else "text_completion"
        usage = {"prompt_tokens": 1, "completion_tokens": len(said), "total_tokens": 1 + len(said)}
        self._json(200, {"id": "1", "object": kind, "created": 1, "model": body["model"], "choices": [choice], "usage": usage})

    def _likely(self, token: str) -> dict[str, Any]:
        of = 0.5 if self.server.fault == "positive logprobs" else -0.5
        other = -0.1 if self.server.fault == "not the likeliest" else -1.5
        top = [{"token": token, "logprob": of, "bytes": None}, {"token": "x", "logprob": other, "bytes": None}]
        return {"token": token, "logprob": of, "bytes": None, "top_logprobs": top}

    def _stream(self, model: str, said: list[str], finish: str) -> None:
        fault = self.server.fault
        if fault == "other streams":
            said = said[:-1]
        if fault == "one piece":
            said = ["".join(said)]
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream")
        self.send_header("Connection", "close")
        self.end_headers()
        deltas: list[tuple[dict[str, str], str | None]] = [({"role": "assistant", "content": ""}, None)]
        deltas += [({"content": token}, None) for token in said]
        deltas += [] if fault == "endless stream" else [({}, finish)]
        for delta, reason in deltas:
            choice = {"index": 0, "delta": delta, "finish_reason": reason}
            chunk = {"id": "1", "object": "chat.completion.chunk", "created": 1, "model": model, "choices": [choice]}
            self.wfile.write(f"data: {json.dumps(chunk)}\n\n".encode())
            self.wfile.flush()
            time.sleep(self.server.pause)
        self.wfile.write(b"data: [DONE]\n\n")
        self.close_connection = True

    def _allowed(self) -> bool:
        fault, given = self.server.fault, self.headers.get("Authorization")
        if given == f"Bearer {self.server.key}" or fault == "open" or (fault == "any key" and given):
            return True
        self._json(401, {"error": {"message": "Unauthorized"}})
        return False

    def _json(self, status: int, body: Any) -> None:
        self._text(status, json.dumps(body), "application/json")

    def _text(self, status: int, text: str, kind: str = "text/plain") -> None:
        data = text.encode()
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)
