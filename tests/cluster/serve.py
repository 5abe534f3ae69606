"""A model server: it answers the Open Inference Protocol with the linear model that it finds, and says what it has.

It runs in a container, from lading's image with this file in it: nothing but the standard library.
"""

import hashlib
import http.server
import json
import os
import sys

MODEL = os.environ.get("MODEL", "/mnt/models")
NAME = os.environ.get("MODEL_NAME", "iris")


weights = []


def load():
    """Take the model that is there now; one that was taken serves until then."""
    with open(f"{MODEL}/weights.json", encoding="utf-8") as file:
        weights[:] = json.load(file)
    print("loaded", weights, flush=True)


def files():
    """Path and SHA-256 of each file that is no part of a delivery's own."""
    found = {}
    for parent, _, names in os.walk("/mnt"):
        for name in names:
            path = f"{parent}/{name}"
            if "/.lading" not in path:
                with open(path, "rb") as file:
                    found[path] = hashlib.sha256(file.read()).hexdigest()
    return found


class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        if self.path == "/files":
            self.answer(files())
        elif self.path in ("/v2/health/live", "/v2/health/ready", f"/v2/models/{NAME}/ready"):
            self.answer({})
        elif self.path == "/plausible":
            self.answer({}, 200 if min(weights) > 0 else 503)
        else:
            self.answer({"error": "not found"}, 404)

    def do_POST(self):
        question = json.loads(self.rfile.read(int(self.headers.get("Content-Length", "0"))) or b"{}")
        if self.path == f"/v2/repository/models/{NAME}/load":
            load()
            self.answer({})
            return
        rows = question["inputs"][0]["data"]
        output = {"name": "predict", "datatype": "FP64", "shape": [len(rows)]}
        output["data"] = [sum(a * b for a, b in zip(weights, row, strict=True)) for row in rows]
        self.answer({"model_name": NAME, "outputs": [output]})

    def answer(self, document, status=200):
        body = json.dumps(document).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        """Probes are no news."""


if os.path.exists(f"{MODEL}/weights.json"):
    load()
try:
    http.server.HTTPServer(("", 8080), Handler).serve_forever()
except KeyboardInterrupt:
    sys.exit(0)
