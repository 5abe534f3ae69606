"""A file is judged by its content: what it is, whether it is whole, whether loading it runs code."""

import io
import zipfile

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from formats import files
from lading.formats.inspector import Finding, Inspector

WHOLE = {
    "model.safetensors": files.safetensors(),
    "model.gguf": files.gguf(),
    "array.npy": files.numpy(),
    "structured.npy": files.numpy([("a", "<f4"), ("b", "<i8", (2,))], (2,), bytes(40)),
    "long-header.npy": files.numpy(major=2),
    "arrays.npz": files.zipped({"a.npy": files.numpy(), "b.npy": files.numpy()}, zipfile.ZIP_DEFLATED),
    "model.onnx": files.onnx(),
    "config.json": b'{"architectures": ["LlamaForCausalLM"], "eos_token_id": NaN}',
    "model.keras": files.zipped(
        {"config.json": b'{"class_name": "Functional"}', "model.weights.h5": b"\x89HDF\r\n\x1a\n"}
    ),
}


def inspected(path: str, data: bytes) -> Finding:
    return Inspector().inspect(path, io.BytesIO(data), len(data))


@pytest.mark.parametrize("path", WHOLE)
def test_a_whole_file_has_no_fault_and_runs_no_code(path):
    finding = inspected(path, WHOLE[path])
    assert finding.format
    assert (finding.fault, finding.code) == ("", "")


@pytest.mark.parametrize("path", [path for path in WHOLE if not path.endswith(".json")])
def test_content_says_what_a_file_is_whatever_its_name(path):
    if not path.endswith(".onnx"):
        assert inspected("weights.bin", WHOLE[path]).format == inspected(path, WHOLE[path]).format


@pytest.mark.parametrize("path", [path for path in WHOLE if path not in ("config.json", "model.onnx")])
def test_a_file_that_was_cut_is_damaged(path):
    assert inspected(path, WHOLE[path][:-1]).fault or path == "model.keras"


DAMAGED = {
    "a header longer than the file": ("a.safetensors", files.safetensors(length=10_000)),
    "a header longer than any": ("a.safetensors", files.safetensors(length=1 << 60)),
    "a header that is no JSON": ("a.safetensors", files.safetensors(length=9)),
    "a hole between tensors": (
        "a.safetensors",
        files.safetensors({"a": {"dtype": "U8", "shape": [8], "data_offsets": [16, 24]}}),
    ),
    "tensors that overlap": (
        "a.safetensors",
        files.safetensors(
            {name: {"dtype": "U8", "shape": [16], "data_offsets": [at, at + 16]} for name, at in (("a", 0), ("b", 8))}
        ),
    ),
    "a shape of another size": (
        "a.safetensors",
        files.safetensors({"a": {"dtype": "F32", "shape": [7], "data_offsets": [0, 24]}}),
    ),
    "a negative dimension": (
        "a.safetensors",
        files.safetensors({"a": {"dtype": "U8", "shape": [-4, -6], "data_offsets": [0, 24]}}),
    ),
    "a dimension that is true": (
        "a.safetensors",
        files.safetensors({"a": {"dtype": "U8", "shape": [True], "data_offsets": [0, 24]}}),
    ),
    "an offset that is text": (
        "a.safetensors",
        files.safetensors({"a": {"dtype": "U8", "shape": [], "data_offsets": ["0", 1]}}),
    ),
    "bytes after the tensors": ("a.safetensors", files.safetensors(data=bytes(25))),
    "nothing at all": ("a.safetensors", b""),
    "a name that lies": ("a.safetensors", files.numpy()),
    "a pickle in disguise": ("a.safetensors", files.pickled()),
    "tensors that overlap in GGUF": ("a.gguf", files.gguf(offset=32)),
    "a tensor that is not aligned": ("a.gguf", files.gguf(offset=65)),
    "a tensor beyond the end": ("a.gguf", files.gguf(offset=96)),
    "an unknown version": ("a.gguf", files.gguf(version=9)),
    "an alignment of nothing": ("a.gguf", files.gguf(alignment=0)),
    "an array of another size": ("a.npy", files.numpy(shape=(2, 4))),
    "a header that is an expression": ("a.npy", files.numpy().replace(b"(2, 3)", b"exit()")),
    "a model without a graph": ("a.onnx", b"\x08\x0a"),
    "a graph beyond the end": ("a.onnx", files.onnx()[:6]),
    "a number that does not end": ("a.onnx", b"\x08" + b"\xff" * 20),
    "JSON that was cut": ("a.json", b'{"a": '),
    "JSON without an end": ("a.json", b"[" * 100_000),
    "a zip that was cut": ("a.npz", files.zipped({"a.npy": files.numpy()})[:-30]),
    "a damaged array in a zip": ("a.npz", files.zipped({"a.npy": files.numpy()[:-1]})),
}


@pytest.mark.parametrize(("path", "data"), DAMAGED.values(), ids=DAMAGED)
def test_what_is_damaged_is_said(path, data):
    assert inspected(path, data).fault


RUNS = {
    "protocol 0": ("weights.bin", files.pickled(0)),
    "protocol 1": ("weights.bin", files.pickled(1)),
    "protocol 2": ("weights.bin", files.pickled(2)),
    "protocol 5": ("model.pkl", files.pickled(5)),
    "a harmless one, then one that runs": ("weights.bin", b"N." + files.pickled(0)),
    "a long one": ("weights.bin", files.pickled(4, [b"x" * 100_000, "y"])),
    "a compressed one": ("model.joblib", b"\x78\x9c\x00"),
    "PyTorch": ("pytorch_model.bin", files.zipped({"archive/data.pkl": files.pickled(2), "archive/data/0": bytes(9)})),
    "PyTorch with another name within": ("pytorch_model.bin", files.zipped({"a/weights": files.pickled(2)})),
    "a compressed member": ("x", files.zipped({"a/weights": files.pickled(2)}, zipfile.ZIP_DEFLATED)),
    "a zip in a zip": ("x", files.zipped({"a": files.zipped({"b": files.pickled(2)})})),
    "a zip in zips": ("x", files.zipped({"a": files.zipped({"b": files.zipped({"c": b"text"})})})),
    "objects": ("array.npy", files.numpy("|O", (1,), files.pickled())),
    "objects in a field": ("array.npy", files.numpy([("a", "<f4"), ("b", [("c", "|O")])], (1,), files.pickled())),
    "objects in a zip": ("arrays.npz", files.zipped({"a.npy": files.numpy("|O", (1,), files.pickled())})),
    "Lambda in .keras": (
        "model.keras",
        files.zipped({"config.json": b'{"config": {"layers": [{"class_name": "Lambda"}]}}'}),
    ),
    "a zip whose first member is damaged": (
        "model.pt",
        files.zipped({"config.json": b"{", "archive/data.pkl": files.pickled(2)}),
    ),
    "a zip that was cut": ("model.pt", files.zipped({"archive/data.pkl": files.pickled(2)})[:-30]),
    "Lambda in HDF5": ("model.h5", b"\x89HDF\r\n\x1a\n" + bytes((1 << 20) - 20) + b'{"class_name": "Lambda"}'),
    "Python files": ("config.json", b'{"auto_map": {"AutoModel": "modeling_tiny.TinyModel"}}'),
}


@pytest.mark.parametrize(("path", "data"), RUNS.values(), ids=RUNS)
def test_what_runs_code_when_it_is_loaded_is_said(path, data):
    assert inspected(path, data).code


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"0.5\n",
        b"cat\ndog\n",
        b"import os\n",
        b"# Model\n",
        b"(a)\n",
        b"\x80\x02",
        bytes(100),
        b"N.",
    ],
)
def test_text_and_weights_are_not_taken_for_pickles(data):
    assert inspected("vocabulary.txt", data) == Finding("")


# pickletools warns of escapes that a text of protocol 0 has.
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@given(st.sampled_from(sorted(WHOLE)), st.data())
def test_a_file_with_any_bytes_changed_is_judged(path, data):
    content = bytearray(WHOLE[path])
    for _ in range(data.draw(st.integers(1, 4))):
        content[data.draw(st.integers(0, min(len(content), 400) - 1))] = data.draw(st.integers(0, 255))
    inspected(path, bytes(content))


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@given(st.sampled_from(["a.safetensors", "a.gguf", "a.npy", "a.npz", "a.onnx", "a.json", "a"]), st.binary(max_size=200))
@example("a", b"GGUF" + b"\xff" * 40)
@example("a", b"\x93NUMPY\x01\x00\x04\x00((((")
def test_any_bytes_are_judged(path, content):
    inspected(path, content)
