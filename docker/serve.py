"""Serves one exported network over HTTP; needs NumPy, the network's runtime and `exporters`, nothing else.

| request | answer |
|---|---|
| ``GET /`` | inputs, outputs and accepted sizes; the runtime's settings in effect |
| ``GET /health`` | ``{"status": "ok"}`` |
| ``POST /predict`` with JSON ``{"input": [[...]]}`` | outputs as nested lists |
| ``POST /predict`` with an ``.npz`` file as ``application/octet-stream`` | likewise |

Inputs and outputs go by name. Answers are JSON objects; a request that cannot be answered gets status 4xx and an
``error`` that says what to change. One prediction runs at a time, with all threads; further requests wait.

Run it: ``python serve.py student.xml --port 8080``
"""

import argparse
import io
import json
import signal
import sys
import threading
import zipfile
from collections.abc import Mapping
from contextlib import suppress
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, NoReturn, cast

import numpy as np

import exporters

LARGEST_BODY_BYTES = 64 * 2**20


class RequestError(Exception):
    """A request that cannot be answered.

    Args:
        status: HTTP status of the answer.
        message: What is wrong with it.
    """

    def __init__(self, status: HTTPStatus, message: str) -> None:
        super().__init__(message)
        self.status = status


class ModelServer(ThreadingHTTPServer):
    """Holds the session that requests share.

    Args:
        address: Host and port to listen on; port 0 takes a free one.
        artifact: The exported network.
        threads: Threads that one prediction may use; ``None`` for every processor at hand.
    """

    daemon_threads = True

    def __init__(self, address: tuple[str, int], artifact: exporters.Artifact, *, threads: int | None) -> None:
        self.artifact = artifact
        self.session = exporters.load(artifact, threads=threads)
        self._turn = threading.Lock()
        super().__init__(address, RequestHandler)

    def description(self) -> dict[str, Any]:
        """What the network takes and returns."""
        signature = self.artifact.signature
        return {
            "name": self.artifact.path.name,
            "inputs": {spec.name: {"shape": spec.shape, "dtype": spec.dtype} for spec in signature.inputs},
            "outputs": {spec.name: {"shape": spec.shape, "dtype": spec.dtype} for spec in signature.outputs},
            "dimensions": {name: [sizes.smallest, sizes.largest] for name, sizes in signature.dimensions.items()},
            "properties": dict(self.session.properties),
        }

    def predict(self, inputs: Mapping[str, np.ndarray]) -> dict[str, Any]:
        """Outputs by name, as nested lists."""
        with self._turn:
            outputs = self.session.run(inputs)
        infinite = [name for name, output in outputs.items() if not np.isfinite(output).all()]
        if infinite:
            raise RequestError(
                HTTPStatus.UNPROCESSABLE_ENTITY, f"outputs {infinite} are not finite for these inputs; JSON has no NaN."
            )
        return {name: output.tolist() for name, output in outputs.items()}

    def arrays(self, values: Mapping[str, Any]) -> dict[str, np.ndarray]:
        """Nested lists as arrays of the types that the network takes; no value is rounded to an integer."""
        dtypes = {spec.name: spec.dtype for spec in self.session.inputs}
        arrays = {name: np.asarray(value) for name, value in values.items()}
        return {
            name: array.astype(dtypes.get(name, array.dtype), casting="same_kind") for name, array in arrays.items()
        }


class RequestHandler(BaseHTTPRequestHandler):
    """Answers one request."""

    timeout = 30  # seconds without a byte until a connection is dropped

    def do_GET(self) -> None:
        """Describe the network, or say that it is ready."""
        if self.path == "/":
            self._answer(HTTPStatus.OK, self._model.description())
        elif self.path == "/health":
            self._answer(HTTPStatus.OK, {"status": "ok"})
        else:
            self._answer(HTTPStatus.NOT_FOUND, {"error": f"{self.path} is not served: GET / or /health."})

    def do_POST(self) -> None:
        """Predict."""
        try:
            if self.path != "/predict":
                raise RequestError(HTTPStatus.NOT_FOUND, f"{self.path} is not served: POST /predict.")
            self._answer(HTTPStatus.OK, self._model.predict(self._inputs()))
        except RequestError as error:
            self._answer(error.status, {"error": str(error)})
        except exporters.InputError as error:
            self._answer(HTTPStatus.BAD_REQUEST, {"error": str(error)})

    @property
    def _model(self) -> ModelServer:
        return cast(ModelServer, self.server)

    def _inputs(self) -> dict[str, np.ndarray]:
        body = self._body()
        kind = self.headers.get_content_type()
        try:
            if kind == "application/octet-stream":
                with np.load(io.BytesIO(body), allow_pickle=False) as archive:
                    return dict(archive)
            if kind == "application/json":
                return self._model.arrays(json.loads(body))
        except (ValueError, TypeError, AttributeError, OSError, zipfile.BadZipFile) as error:
            raise RequestError(
                HTTPStatus.BAD_REQUEST, f"the body must hold arrays by name as {kind}, but it does not: {error}"
            ) from error
        raise RequestError(
            HTTPStatus.UNSUPPORTED_MEDIA_TYPE,
            f"Content-Type must be application/json or application/octet-stream (an .npz file), got {kind}.",
        )

    def _body(self) -> bytes:
        length = self.headers.get("Content-Length", "")
        if not length.isdecimal():
            raise RequestError(HTTPStatus.LENGTH_REQUIRED, "the request must state its Content-Length.")
        if int(length) > LARGEST_BODY_BYTES:
            raise RequestError(
                HTTPStatus.REQUEST_ENTITY_TOO_LARGE, f"a body has at most {LARGEST_BODY_BYTES} bytes, got {length}."
            )
        return self.rfile.read(int(length))

    def _answer(self, status: HTTPStatus, content: Mapping[str, Any]) -> None:
        body = json.dumps(content).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


def main() -> None:
    """Read the options and serve until interrupted."""
    parser = argparse.ArgumentParser(description="Serve one exported network over HTTP.", allow_abbrev=False)
    parser.add_argument("artifact", type=Path, help="exported file, with its manifest beside it")
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on (%(default)s)")
    parser.add_argument("--port", type=int, default=8080, help="port to listen on, 0 for a free one (%(default)s)")
    parser.add_argument("--threads", type=int, help="threads that one prediction may use; all if not given")
    options = parser.parse_args()
    signal.signal(signal.SIGTERM, _stop)  # the first process of a container ignores signals that it does not handle
    try:
        artifact = exporters.Artifact.read(options.artifact)
        server = ModelServer((options.host, options.port), artifact, threads=options.threads)
    except (exporters.ExportError, OSError, ValueError) as error:
        parser.error(str(error))
    with server, suppress(KeyboardInterrupt):
        host, port = server.server_address[:2]
        sys.stdout.write(f"Serving {options.artifact.name} at http://{host!s}:{port}\n")
        sys.stdout.flush()
        server.serve_forever()


def _stop(_: int, __: object) -> NoReturn:
    raise KeyboardInterrupt


if __name__ == "__main__":
    main()
