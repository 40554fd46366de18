"""A receiver of webhooks, run as a process: `python webhook_receiver_process.py PORT LOG`.

Each webhook is a line of LOG, on the disk before it is answered. `POST /mode` sets what comes next:
`ok`, `fail`, `hang`, `redirect`, `busy`, or `mixed`, which does each of the first three to some. It
imports nothing but the standard library, so that it starts at once.
"""

from __future__ import annotations

import json
import os
import random
import sys
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

HANGS_SECONDS = 15
STATUSES = {"ok": 204, "fail": 500, "redirect": 302, "busy": 429}


class Handler(BaseHTTPRequestHandler):
    mode = "ok"
    log_path = Path()

    def do_GET(self) -> None:
        self.answer(200)

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers.get("content-length", 0))).decode()
        if self.path == "/mode":
            type(self).mode = body
            self.answer(204)
            return
        mode = self.mode
        if mode == "mixed":
            mode = random.choices(("ok", "fail", "hang"), (80, 18, 2))[0]
        status = STATUSES.get(mode, 0)
        entry = {
            "at": time.time(),
            "path": self.path,
            "headers": dict(self.headers.items()),
            "body": body,
            "status": status,
        }
        with self.log_path.open("a") as file:
            file.write(json.dumps(entry) + "\n")
            file.flush()
            os.fsync(file.fileno())
        if mode == "hang":
            time.sleep(HANGS_SECONDS)
            return
        self.answer(status)

    def answer(self, status: int) -> None:
        self.send_response(status)
        if status == 302:
            self.send_header("Location", f"http://{self.headers['host']}/elsewhere")
        if status == 429:
            self.send_header("Retry-After", "3")
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *_arguments: object) -> None:
        pass


if __name__ == "__main__":
    Handler.log_path = Path(sys.argv[2])
    ThreadingHTTPServer.request_queue_size = 128
    ThreadingHTTPServer(("127.0.0.1", int(sys.argv[1])), Handler).serve_forever()
