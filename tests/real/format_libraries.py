"""Run by the Python that has the formats' own libraries.

``write FOLDER`` has them write files there; ``open`` reads paths, one a line, and writes for each what they say when they do not open it, or "".
"""

import json
import sys
from pathlib import Path


def write(folder: Path) -> None:
    import gguf
    import numpy as np
    import onnx
    from onnx import TensorProto, helper
    from safetensors.numpy import save_file

    arrays = {
        "weight": np.arange(12, dtype="f4").reshape(3, 4),
        "bias": np.zeros(3, "f8"),
        "none": np.zeros((0, 2), "i4"),
    }
    save_file(arrays, folder / "arrays.safetensors", metadata={"format": "np"})
    save_file({}, folder / "empty.safetensors")
    for name, array in {
        "floats": arrays["weight"],
        "scalar": np.array(1.5),
        "text": np.array(["iris", "versicolor"]),
        "times": np.array(["2026-01-01"], "M8[D]"),
        "fields": np.zeros(2, [("a", "<f4"), ("b", "<i8", (2,)), ("c", [("d", "S3")])]),
        "fortran": np.asfortranarray(arrays["weight"]),
    }.items():
        np.save(folder / f"{name}.npy", array)
    np.savez(folder / "stored.npz", **arrays)
    np.savez_compressed(folder / "deflated.npz", **arrays)
    writer = gguf.GGUFWriter(folder / "tiny.gguf", "llama")
    writer.add_token_list(["<s>", "a"])
    writer.add_token_scores([0.0, 1.0])
    writer.add_custom_alignment(64)
    for name, array in arrays.items():
        if array.size:
            writer.add_tensor(name, array)
    blocks = gguf.quants.quantize(np.ones((2, 64), "f4"), gguf.GGMLQuantizationType.Q8_0)
    writer.add_tensor("quantized", blocks, raw_dtype=gguf.GGMLQuantizationType.Q8_0)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    value = helper.make_tensor_value_info("x", TensorProto.FLOAT, [1])
    graph = helper.make_graph([helper.make_node("Identity", ["x"], ["y"])], "tiny", [value], [value])
    onnx.save(helper.make_model(graph), folder / "tiny.onnx")
    np.save(folder / "objects.npy", np.array([{}], dtype=object), allow_pickle=True)


def refusal(path: str) -> str:
    import gguf
    import numpy as np
    from safetensors import safe_open

    try:
        match Path(path).suffix:
            case ".safetensors":
                with safe_open(path, "np") as file:
                    for name in sorted(file.keys()):
                        file.get_slice(name)
            case ".npy":
                np.load(path, allow_pickle=False)
            case ".npz":
                with np.load(path, allow_pickle=False) as arrays:
                    for name in arrays:
                        arrays[name]
            case ".gguf":
                gguf.GGUFReader(path)
    except Exception as error:  # noqa: BLE001 - whatever it raises, it does not open the file
        return f"{type(error).__name__}: {error}"
    return ""


if sys.argv[1] == "write":
    write(Path(sys.argv[2]))
else:
    json.dump([refusal(line.rstrip("\n")) for line in sys.stdin], sys.stdout)
