"""Two S3 servers from packages: ``rclone serve s3`` checks signatures, moto keeps checksums and versions."""

import logging
import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from fakes.trees import paths

ACCESS_KEY_ID = "AKIAIOSFODNN7EXAMPLE"
SECRET_ACCESS_KEY = "wJalrXUtnFEMIK7MDENGbPxRfiCYEXAMPLEKEY00"
BUCKET = "models"


def s3_settings(endpoint: str, secret_access_key: str = SECRET_ACCESS_KEY, **variables: str) -> dict[str, object]:
    """Settings, as keywords, for a server at ``endpoint`` with these keys."""
    return {
        "variables": {
            "AWS_ENDPOINT_URL": endpoint,
            "AWS_DEFAULT_REGION": "us-east-1",
            "AWS_ACCESS_KEY_ID": ACCESS_KEY_ID,
            "AWS_SECRET_ACCESS_KEY": secret_access_key,
            "AWS_EC2_METADATA_DISABLED": "true",
            **variables,
        }
    }


def s3_anonymous(endpoint: str, **variables: str) -> dict[str, object]:
    """Settings, as keywords, for a server at ``endpoint`` without keys."""
    return {"variables": {"AWS_ENDPOINT_URL": endpoint, "awsAnonymousCredential": "true", **variables}}


def client(endpoint: str) -> Any:
    """The official client."""
    import boto3

    return boto3.client(
        "s3",
        endpoint_url=endpoint,
        region_name="us-east-1",
        aws_access_key_id=ACCESS_KEY_ID,
        aws_secret_access_key=SECRET_ACCESS_KEY,
    )


@contextmanager
def rclone(
    folder: Path, address: str = "127.0.0.1", within: Callable[..., list[str]] = lambda *command: [*command]
) -> Iterator[str]:
    """The endpoint of ``rclone serve s3``: each folder in ``folder`` is a bucket.

    ``within`` makes the command that is run of the one that is meant, as for a network namespace.
    """
    keys = f"{ACCESS_KEY_ID},{SECRET_ACCESS_KEY}"
    command = within("rclone", "serve", "s3", "--config", "", "--addr", f"{address}:0", "--auth-key", keys, str(folder))
    env = os.environ | {"PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=env)
    try:
        assert process.stderr is not None
        found = next(match for line in process.stderr if (match := re.search(rf"http://{address}:\d+", line)))
        yield found[0]
    finally:
        process.terminate()
        process.communicate()


@contextmanager
def moto() -> Iterator[str]:
    """The endpoint of moto's server, with an empty bucket that keeps versions."""
    from moto.server import ThreadedMotoServer

    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    endpoint = f"http://{host}:{port}"
    try:
        client(endpoint).create_bucket(Bucket=BUCKET)
        yield endpoint
    finally:
        server.stop()


def fill_moto(folder: Path, prefix: str) -> None:
    """Put every file of ``folder`` into moto's bucket, not through HTTP: 3,000 requests would take half a minute."""
    from moto.core.models import DEFAULT_ACCOUNT_ID
    from moto.s3.models import s3_backends

    store = s3_backends[DEFAULT_ACCOUNT_ID]["aws"]
    for path in paths(folder):
        store.put_object(BUCKET, f"{prefix}/{path}", (folder / path).read_bytes())
