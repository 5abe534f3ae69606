"""A model server with the Open Inference Protocol's repository extension, on ``FaultyServer``.

A model is a folder with the file ``answer``.  As Triton and MLServer do: to load it again reads it again, the one
before serves until then, and goes on to serve if the new one cannot be read.  ``broken`` cannot be loaded, ``mute``
can be loaded and answers no inference.
"""

import json
from pathlib import Path

from fakes.faulty_http import Answer, FaultyServer, Request

BROKEN, MUTE = b"broken", b"mute"


class FakeV2:
    def __init__(self, server: FaultyServer, folder: Path, name: str = "iris") -> None:
        self.url, self._folder, self._name = server.url, folder, name
        self.there = True
        self.ready_after = 0
        self.serving: bytes | None = None
        self.loads: list[bytes] = []
        server.routes["/v2/"] = self._route

    def _route(self, request: Request) -> Answer:
        if not self.there:
            return Answer(503)
        model = f"/v2/models/{self._name}"
        if request.path == "/v2/health/live":
            return Answer(200)
        if request.path == f"/v2/repository/models/{self._name}/load" and request.method == "POST":
            return self._load()
        if request.path == f"{model}/ready":
            self.ready_after -= 1
            return Answer(200 if self.serving is not None and self.ready_after < 0 else 400)
        if request.path == f"{model}/infer" and request.method == "POST":
            json.loads(request.body)
            if self.serving in (None, MUTE):
                return self._json({"error": "no answer"}, 500)
            output = {"name": "answer", "datatype": "BYTES", "shape": [1], "data": [self.serving.decode()]}
            return self._json({"model_name": self._name, "outputs": [output]})
        return Answer(404)

    def _load(self) -> Answer:
        try:
            content = (self._folder / "answer").read_bytes()
        except OSError:
            return self._json({"error": "there is no model"}, 400)
        self.loads.append(content)
        if content == BROKEN:
            return self._json({"error": "the model\u001b[31m cannot be read"}, 500)
        self.serving = content
        return self._json({})

    def _json(self, document: object, status: int = 200) -> Answer:
        return Answer(status, {"Content-Type": "application/json"}, json.dumps(document).encode())
