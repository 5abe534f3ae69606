"""What the scan of pickles lets pass, and what it names: no claim goes beyond this table."""

import io
import zipfile
from collections import OrderedDict

import pytest

from formats import files
from lading.formats.inspector import Inspector
from lading.formats.pickles import scanned_code

INSPECTOR = Inspector(scanned_code)


def call(module: str, name: str, argument: bytes = b"Vx\n") -> bytes:
    """A pickle of protocol 0 that calls a function."""
    return b"c" + f"{module}\n{name}\n".encode() + b"(" + argument + b"tR."


def code_in(path: str, data: bytes) -> str:
    return INSPECTOR.inspect(path, io.BytesIO(data), len(data)).code


# Also names that blocklists have missed, of advisories on scanners of pickles.
@pytest.mark.parametrize(
    ("module", "name"),
    [
        ("os", "system"),
        ("posix", "system"),
        ("builtins", "eval"),
        ("builtins", "getattr"),
        ("__builtin__", "exec"),
        ("subprocess", "Popen"),
        ("runpy", "run_path"),
        ("timeit", "timeit"),
        ("pip", "main"),
        ("idlelib.pyshell", "ModifiedInterpreter.runcode"),
        ("lib2to3.pgen2.pgen", "ParserGenerator.make_label"),
        ("numpy.f2py.crackfortran", "myeval"),
        ("torch.utils._config_module", "load_config"),
        ("urllib.request", "urlretrieve"),
        ("asyncio.unix_events", "_UnixSubprocessTransport._start"),
        ("a_module_of", "somebody"),
        ("collections", "namedtuple"),
    ],
)
def test_what_is_not_known_to_be_harmless_is_named(module, name):
    assert f"{module} {name}" in code_in("model.pkl", call(module, name))


@pytest.mark.parametrize("protocol", range(6))
def test_every_protocol_is_read(protocol):
    assert "system" in code_in("model.pkl", files.pickled(protocol))


@pytest.mark.parametrize(
    ("path", "data"),
    [
        ("weights.bin", b"N." + files.pickled(0)),
        ("model.pt", files.zipped({"archive/data.pkl": files.pickled(2)})),
        (
            "model.pt",
            files.zipped({"a/first.pkl": files.pickled(2, {}), "a/second": files.pickled(2)}, zipfile.ZIP_DEFLATED),
        ),
        ("array.npy", files.numpy("|O", (1,), files.pickled())),
        ("arrays.npz", files.zipped({"a.npy": files.numpy("|O", (1,), files.pickled())})),
        ("model.pkl", b"(Vtrue\nios\nsystem\n."),
        ("model.pkl", files.pickled(4)[:-1]),
        ("model.joblib", b"\x78\x9c\x00"),
    ],
)
def test_every_disguise_is_looked_through_or_refused(path, data):
    assert code_in(path, data)


@pytest.mark.parametrize(
    ("path", "data"),
    [
        ("model.pkl", files.pickled(4, {"weights": [1.0, 2.0], "names": ("a", None, True)})),
        ("model.pkl", files.pickled(2, OrderedDict(a=1))),
        ("model.pkl", b"cnumpy.core.multiarray\n_reconstruct\n."),
        ("model.pt", files.zipped({"archive/data.pkl": b"ctorch._utils\n_rebuild_tensor_v2\n."})),
        ("model.pkl", b"ctorch\nFloatStorage\n."),
        ("array.npy", files.numpy("|O", (1,), files.pickled(4, [None]))),
    ],
)
def test_what_is_known_to_be_harmless_passes(path, data):
    assert code_in(path, data) == ""
