"""The benchmark's data and its server: nginx, which answers as an S3 endpoint and costs the client nothing.

Every set is a prefix of the bucket ``models``. ListObjectsV2 is answered from files made here, GET
by sendfile, on one worker pinned to the second CPU, so that a run measures the client alone.
Needs nginx and openssl, and nginx's Lua module for the answers that are 30 ms away.
"""

import contextlib
import multiprocessing
import os
import random
import re
import subprocess
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import NamedTuple
from urllib.parse import quote
from urllib.request import urlopen

PORTS = {"tcp": 9700, "tls": 9743, "far": 9730}
_STATUS_PORT = 9701
_MIB = 1 << 20
_PAGE_KEYS = 1000
_LUA = Path("/usr/share/nginx/modules/ngx_http_lua_module.so")
_NDK = Path("/usr/share/nginx/modules/ndk_http_module.so")


class Set(NamedTuple):
    """A model to fetch: what it is, and how its files are made at a scale (1.0 is the full size)."""

    what: str
    make: Callable[[Path, float], None]


def _noise(size_bytes: int, seed: int) -> bytes:
    return random.Random(seed).randbytes(size_bytes)


def _large(path: Path, size_bytes: int, seed: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    block = _noise(min(16 * _MIB, size_bytes), seed)
    with path.open("wb") as file:
        for _ in range(size_bytes // len(block)):
            # Turned by a byte each time, so that no two blocks are alike.
            block = block[1:] + block[:1]
            file.write(block)


def _llm(folder: Path, scale: float) -> None:
    for shard in range(8):
        _large(folder / f"model-{shard + 1:05d}-of-00008.safetensors", round(512 * _MIB * scale), shard)
    (folder / "config.json").write_text('{"model_type": "llama"}')


def _huge(folder: Path, scale: float) -> None:
    _large(folder / "weights.bin", round(2048 * _MIB * scale), 8)


def _many(folder: Path, scale: float) -> None:
    noise = _noise(2 * _MIB, 9)
    for number in range(round(5000 * scale)):
        path = folder / f"d{number % 50:02d}" / f"f{number:05d}.bin"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(noise[number * 100 : number * 100 + 16384])


def _swarm(folder: Path, scale: float) -> None:
    noise = _noise(_MIB, 11)
    for number in range(round(100_000 * scale)):
        path = folder / f"d{number % 100:02d}" / f"f{number:06d}.bin"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(noise[number : number + 1024])


def _tiny(folder: Path, scale: float) -> None:
    folder.mkdir(parents=True)
    (folder / "model.joblib").write_bytes(_noise(1024, 10))


SETS = {
    "llm": Set("8 × 512 MiB and a config", _llm),
    "huge": Set("1 × 2 GiB", _huge),
    "many": Set("5000 × 16 KiB", _many),
    "swarm": Set("100,000 × 1 KiB", _swarm),
    "tiny": Set("1 × 1 KiB", _tiny),
}


@contextlib.contextmanager
def serving(root: Path, scale: float, sets: Mapping[str, Set] = SETS) -> Iterator[None]:
    """Make the data below ``root`` if it is not there, and serve it until the block ends."""
    data, run = root / f"data-{scale:g}", root / "run"
    run.mkdir(parents=True, exist_ok=True)
    # In a process of its own: the peak memory of a client counts what its parent held when it forked.
    maker = multiprocessing.Process(target=_make_data, args=(data, scale, sets))
    maker.start()
    maker.join()
    _make_certificate(run)
    (run / "nginx.conf").write_text(_configuration(data, run, sets))
    subprocess.run(["nginx", "-c", run / "nginx.conf"], check=True)
    try:
        yield
    finally:
        subprocess.run(["nginx", "-c", run / "nginx.conf", "-s", "quit"], check=False, capture_output=True)


def version() -> str:
    """Of nginx and of its OpenSSL."""
    said = subprocess.run(["nginx", "-V"], check=True, capture_output=True, text=True).stderr
    return " with ".join(re.findall(r"nginx/[\d.]+|OpenSSL [\d.]+", said)[:2])


def cpu_seconds(root: Path) -> float:
    """User and system time that the server's worker has taken so far (proc(5), stat)."""
    master = int((root / "run/nginx.pid").read_text())
    worker = Path(f"/proc/{master}/task/{master}/children").read_text().split()[0]
    fields = Path(f"/proc/{worker}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def requests() -> int:
    """How many requests the server has taken so far, this function's own included."""
    with urlopen(f"http://127.0.0.1:{_STATUS_PORT}/") as answer:
        # Active connections: 1 / server accepts handled requests / 5 5 7 / …
        return int(answer.read().split()[9])


def has_far() -> bool:
    """Whether nginx can answer late."""
    return _LUA.exists()


def _make_data(data: Path, scale: float, sets: Mapping[str, Set]) -> None:
    for name, each in sets.items():
        if not (data / "models" / name).exists():
            each.make(data / "models" / name, scale)
        _write_listing(data, name)


def _write_listing(data: Path, name: str) -> None:
    """The answers to both versions of ListObjects, in pages as long as S3 makes them."""
    rows = []
    for path in sorted((data / "models" / name).rglob("*")):
        if path.is_file():
            status = path.stat()
            # nginx's own ETag, so that If-Match holds.
            etag = f"{int(status.st_mtime):x}-{status.st_size:x}"
            key = quote(str(path.relative_to(data / "models")))
            rows.append(
                f"<Contents><Key>{key}</Key><LastModified>2024-01-01T00:00:00.000Z</LastModified>"
                f"<ETag>&quot;{etag}&quot;</ETag><Size>{status.st_size}</Size><StorageClass>STANDARD</StorageClass></Contents>"
            )
    (data / "list").mkdir(exist_ok=True)
    for start in range(0, len(rows), _PAGE_KEYS):
        page, number = rows[start : start + _PAGE_KEYS], start // _PAGE_KEYS
        more = start + _PAGE_KEYS < len(rows)
        following = f"page{number + 1}"
        ends = f"<NextContinuationToken>{following}</NextContinuationToken><NextMarker>{following}</NextMarker>"
        (data / "list" / f"{name}-page{number}.xml").write_text(
            '<?xml version="1.0" encoding="UTF-8"?><ListBucketResult xmlns="http://s3.amazonaws.com/doc/2006-03-01/">'
            f"<Name>models</Name><Prefix>{name}/</Prefix><KeyCount>{len(page)}</KeyCount><MaxKeys>{_PAGE_KEYS}</MaxKeys>"
            f"<IsTruncated>{str(more).lower()}</IsTruncated>{ends if more else ''}{''.join(page)}</ListBucketResult>"
        )


def _make_certificate(run: Path) -> None:
    if (run / "cert.pem").exists():
        return
    command = [
        "openssl",
        "req",
        "-x509",
        "-newkey",
        "rsa:2048",
        "-nodes",
        "-days",
        "30",
        "-subj",
        "/CN=localhost",
        "-addext",
    ]
    names = "subjectAltName=DNS:localhost,IP:127.0.0.1"
    files = ["-keyout", str(run / "key.pem"), "-out", str(run / "cert.pem")]
    subprocess.run(
        [*command, names, "-addext", "basicConstraints=critical,CA:TRUE", *files], check=True, capture_output=True
    )


def _configuration(data: Path, run: Path, sets: Mapping[str, Set]) -> str:
    listings = "".join(f'"~prefix={name}" "{name}"; ' for name in sets)
    bucket = "if ($request_method = HEAD) { return 200; } default_type application/xml; rewrite ^ /list/$listing-$page.xml last;"
    places = f"""
      root {data};
      location = /models {{ {bucket} }}
      location = /models/ {{ {bucket} }}
      location /list/ {{ types {{ }} default_type application/xml; }}
      location ~ ^/models/({"|".join(sets)})$ {{ return 404; }}
      location / {{ }}"""
    late = f"""
    server {{
      listen 127.0.0.1:{PORTS["far"]};
      access_by_lua_block {{ ngx.sleep(0.03) }}
      {places}
    }}"""
    return f"""{f"load_module {_NDK}; load_module {_LUA};" if has_far() else ""}
  worker_processes 1; worker_cpu_affinity {"10" if (os.cpu_count() or 1) > 1 else "1"};
  pid {run}/nginx.pid; error_log {run}/nginx.err;
  events {{ worker_connections 4096; }}
  http {{
    access_log off; sendfile on; tcp_nopush on; keepalive_requests 1000000; keepalive_timeout 300;
    default_type application/octet-stream; client_body_temp_path {run}; proxy_temp_path {run};
    fastcgi_temp_path {run}; uwsgi_temp_path {run}; scgi_temp_path {run};
    map $args $listing {{ default ""; {listings} }}
    map $args $page {{ default page0; "~(?:continuation-token|marker)=(?<asked>page[0-9]+)" $asked; }}
    server {{
      listen 127.0.0.1:{PORTS["tcp"]};
      listen 127.0.0.1:{PORTS["tls"]} ssl;
      ssl_certificate {run}/cert.pem; ssl_certificate_key {run}/key.pem;
      # Said, since the default is an older one with some versions; and one cipher for all, else each client chooses its own.
      ssl_protocols TLSv1.3; ssl_conf_command Ciphersuites TLS_AES_128_GCM_SHA256;
      {places}
    }}
    {late if has_far() else ""}
    server {{ listen 127.0.0.1:{_STATUS_PORT}; stub_status; }}
  }}
"""
