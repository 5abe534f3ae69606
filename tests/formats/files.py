"""Small files of the formats of models, as their libraries write them."""

import io
import json
import pickle
import struct
import zipfile


class Runs:
    """Runs ``os.system`` when its pickle is loaded."""

    def __reduce__(self):
        import os

        return os.system, ("true",)


def safetensors(header: dict | None = None, data: bytes = bytes(24), *, length: int | None = None) -> bytes:
    tensors = {
        "__metadata__": {"format": "pt"},
        "a": {"dtype": "F32", "shape": [2, 2], "data_offsets": [0, 16]},
        "b": {"dtype": "I64", "shape": [], "data_offsets": [16, 24]},
    }
    text = json.dumps(tensors if header is None else header).encode()
    return struct.pack("<Q", len(text) if length is None else length) + text + data


def gguf(*, offset: int = 64, data: bytes = bytes(64 + 36), version: int = 3, alignment: int = 32) -> bytes:
    def text(value: bytes) -> bytes:
        return struct.pack("<Q", len(value)) + value

    words = b"".join(map(text, (b"<s>", b"a")))
    pairs = [
        text(b"general.alignment") + struct.pack("<II", 4, alignment),
        text(b"general.name") + struct.pack("<I", 8) + text(b"tiny"),
        text(b"tokenizer.ggml.tokens") + struct.pack("<IIQ", 9, 8, 2) + words,
        text(b"tokenizer.ggml.scores") + struct.pack("<IIQ2f", 9, 6, 2, 0.0, 1.0),
    ]
    tensors = [
        text(b"first") + struct.pack("<IQQIQ", 2, 4, 4, 0, 0),
        text(b"second") + struct.pack("<IQIQ", 1, 64, 2, offset),
    ]
    head = b"GGUF" + struct.pack("<IQQ", version, len(tensors), len(pairs)) + b"".join(pairs + tensors)
    return head + bytes(-len(head) % 32) + data


def numpy(descr: object = "<f4", shape: tuple[int, ...] = (2, 3), data: bytes = bytes(24), major: int = 1) -> bytes:
    text = repr({"descr": descr, "fortran_order": False, "shape": shape}).encode()
    text += b" " * (-(len(text) + 11) % 64) + b"\n"
    return b"\x93NUMPY" + bytes((major, 0)) + struct.pack("<H" if major == 1 else "<I", len(text)) + text + data


def onnx(graph: bytes = b"\x12\x04tiny") -> bytes:
    # ir_version: 10, graph, opset_import
    return b"\x08\x0a" + b"\x3a" + bytes((len(graph),)) + graph + b"\x42\x02\x10\x15"


def zipped(members: dict[str, bytes], compression: int = zipfile.ZIP_STORED) -> bytes:
    target = io.BytesIO()
    with zipfile.ZipFile(target, "w", compression) as bundle:
        for name, data in members.items():
            bundle.writestr(name, data)
    return target.getvalue()


def pickled(protocol: int = 4, value: object = Runs) -> bytes:
    return pickle.dumps(value() if value is Runs else value, protocol)
