"""Check what a user pays before the first byte: the time that imports take.

Installs the locked runtime requirements into a folder of their own and measures them there, so
that nothing of the development environment counts.  What they weigh: dependencies.py.
"""

import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
MOST_IMPORT_MS = 60.0
# With everything that a pull needs: what moves bytes is loaded on first use.
MOST_READY_MS = 120.0
_TRIES = 15
_MEASURE = "import time; t = time.perf_counter(); import lading{}; print((time.perf_counter() - t) * 1e3)"
_SDKS = ("boto3", "botocore", "google", "azure", "awscrt", "yaml", "huggingface_hub")
_LOADED = f"import sys, lading; lading.pull; print([name for name in {_SDKS!r} if name in sys.modules])"


def main() -> int:
    """Print the figures; 1 if one is over its budget."""
    with tempfile.TemporaryDirectory() as folder:
        pip = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--target", folder]
        subprocess.run([*pip, "--require-hashes", "-r", str(ROOT / "requirements/runtime.txt")], check=True)
        subprocess.run([*pip, "--no-deps", "--no-build-isolation", str(ROOT)], check=True)
        run = [sys.executable, "-S", "-c"]
        environment = {"PYTHONPATH": folder, "PATH": ""}

        def python(code: str) -> str:
            return subprocess.run([*run, code], env=environment, check=True, capture_output=True, text=True).stdout

        # The least of several: what else the machine does only ever adds.
        import_ms = min(float(python(_MEASURE.format(""))) for _ in range(_TRIES))
        ready_ms = min(float(python(_MEASURE.format("; lading.pull"))) for _ in range(_TRIES))
        loaded = python(_LOADED).strip()
    rows = [("import lading", import_ms, MOST_IMPORT_MS), ("lading.pull", ready_ms, MOST_READY_MS)]
    for name, found, most in rows:
        print(f"{name:14} {found:6.1f} ms  (budget {most:g})")
    print(f"SDKs loaded by import: {loaded}")
    return int(loaded != "[]" or any(found > most for _, found, most in rows))


if __name__ == "__main__":
    sys.exit(main())
