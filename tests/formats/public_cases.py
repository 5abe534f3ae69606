"""Pickles made after the test suites of public scanners, and what carries them: each row of the table in docs/trust.md.

The suites are those of picklescan (tests/init_data_files.py), fickling (test/test_attack_vectors.py, test_bypasses.py,
test_expansion_attack_analysis.py) and modelscan (tests/test_modelscan.py).  Nothing of theirs is copied: the files are
generated here, and nothing in them runs unless somebody loads them.
"""

import pickle
import struct
import zipfile
import zlib
from collections import OrderedDict
from typing import NamedTuple

from formats import files

FUNCTIONS = (
    *("os system", "posix system", "nt system", "os popen", "os execv", "sys exit", "pty spawn", "socket socket"),
    *("builtins eval", "builtins exec", "builtins compile", "builtins getattr", "builtins __import__", "__builtin__ eval"),
    *("subprocess Popen", "subprocess run", "subprocess call", "subprocess check_output", "socket create_connection"),
    *("http.client HTTPSConnection", "httplib HTTPSConnection", "requests.api get", "aiohttp.client ClientSession"),
    *("urllib.request urlopen", "ssl get_server_certificate", "io FileIO", "logging FileHandler", "linecache getline"),
    *("runpy _run_code", "runpy run_path", "runpy run_module", "bdb Bdb.run", "pip main", "venv create"),
    *("pydoc pipepager", "pydoc locate", "timeit timeit", "operator methodcaller", "operator attrgetter", "functools partial"),
    *("importlib import_module", "code InteractiveInterpreter", "code InteractiveInterpreter.runcode", "ctypes CDLL"),
    *("marshal loads", "types FunctionType", "types CodeType", "pickle loads", "_pickle loads", "cPickle loads"),
    *("cProfile run", "cProfile runctx", "profile Profile.run", "profile Profile.runctx", "trace Trace.run"),
    *("trace Trace.runctx", "doctest debug_script", "ensurepip _run_pip", "distutils.file_util write_file"),
    *("idlelib.pyshell ModifiedInterpreter.runcode", "idlelib.pyshell ModifiedInterpreter.runcommand"),
    *("idlelib.run Executive.runcode", "idlelib.autocomplete AutoComplete.get_entity", "idlelib.calltip get_entity"),
    *("idlelib.autocomplete AutoComplete.fetch_completions", "idlelib.calltip Calltip.fetch_tip"),
    *("idlelib.debugobj ObjectTreeItem.SetText", "lib2to3.pgen2.grammar Grammar.loads"),
    *("lib2to3.pgen2.pgen ParserGenerator.make_label", "asyncio.unix_events _UnixSubprocessTransport._start"),
    *("multiprocessing.util spawnv_passfds", "numpy.testing._private.utils runstring", "numpy.f2py.crackfortran myeval"),
    *("numpy.f2py.crackfortran getlincoef", "torch load", "torch.utils.bottleneck.__main__ run_cprofile"),
    *("torch.utils.bottleneck.__main__ run_autograd_prof", "torch._dynamo.guards GuardBuilder.get"),
    *("torch.fx.experimental.symbolic_shapes ShapeEnv.evaluate_guards_expression", "torch.utils.collect_env run"),
    *("torch.utils.collect_env run_and_read_all", "torch.utils.data.datapipes.utils.decoder basichandlers"),
    *("torch.jit.unsupported_tensor_ops execWrapper", "torch.utils._config_module ConfigModule.load_config"),
    *("torch._inductor.codecache compile_file", "_aix_support _read_cmd_output", "_osx_support _read_output"),
    *("imaplib IMAP4_stream", "_pyrepl.pager pipe_pager", "uuid _get_command_stdout", "test.support.script_helper assert_python_ok"),
)  # fmt: skip


class Case(NamedTuple):
    """One row: files of a kind, by path; ``harmful`` says whether loading one of them could do harm."""

    what: str
    after: str
    files: tuple[tuple[str, bytes], ...]
    harmful: bool = True


def _by_lines(name: str) -> bytes:
    """A call by GLOBAL, as protocols 0 to 3 name functions."""
    return b"c" + name.replace(" ", "\n").encode() + b"\n(Vx\ntR."


def _text(text: str) -> bytes:
    return pickle.SHORT_BINUNICODE + bytes([len(text)]) + text.encode()


def _by_stack(name: str) -> bytes:
    """A call by STACK_GLOBAL, as protocols 4 and 5 name functions."""
    module, _, function = name.partition(" ")
    body = _text(module) + pickle.MEMOIZE + _text(function) + pickle.MEMOIZE + pickle.STACK_GLOBAL + pickle.MEMOIZE
    body += _text("x") + pickle.TUPLE1 + pickle.REDUCE + pickle.STOP
    return b"\x80\x04" + pickle.FRAME + struct.pack("<Q", len(body)) + body


def _from_memo() -> bytes:
    """Names that were put aside before, with those of harmless ones between."""
    put = b"".join(
        pickle.UNICODE + text + b"\n" + pickle.PUT + number + b"\n" + pickle.POP
        for text, number in ((b"os", b"2"), (b"system", b"3"), (b"torch", b"0"), (b"LongStorage", b"1"))
    )
    return put + b"g2\ng3\n" + pickle.STACK_GLOBAL + b"(Vx\ntR."


def _odd_stack(pushed: bytes) -> bytes:
    """A call, and after it a STACK_GLOBAL of what is no name, where a scanner may give up."""
    return b"\x80\x04cos\nsystem\nVx\n\x85R0" + pushed + pickle.STACK_GLOBAL + b"K\x42."


def _expanding() -> bytes:
    """Lists of lists of lists: small as a file, huge if every reference is followed."""
    body = b"\x80\x04]\x94"
    for number in range(60):
        body += b"](" + (pickle.BINGET + bytes([number])) * 10 + b"e\x94"
    return body + b"."


def _changed(data: bytes, old: bytes, new: bytes, count: int = -1) -> bytes:
    assert old in data
    return data.replace(old, new, count)


def _flagged(bits: int) -> bytes:
    """A zip whose only member has these general purpose bits, in the local header and in the directory."""
    data = bytearray(files.zipped({"data.pkl": _EVAL}))
    for magic, offset in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        at = data.index(magic) + offset
        data[at : at + 2] = struct.pack("<H", struct.unpack("<H", data[at : at + 2])[0] | bits)
    return bytes(data)


def _pytorch_before_1_6(magic: int) -> bytes:
    """Several pickles in a row: a number, a protocol, facts of the machine, the object."""
    return b"".join(pickle.dumps(each, 2) for each in (magic, 1001, {"little_endian": True})) + files.pickled(2)


def _objects(value: bytes) -> bytes:
    return files.numpy("|O", (1,), value)


_EVAL = _by_stack("builtins eval")
_HARMLESS = pickle.dumps(["a", "b", "c"], 4)
_STATE = b"\x80\x02ccollections\nOrderedDict\n)R(Vw\nctorch._utils\n_rebuild_tensor_v2\n(ctorch\nFloatStorage\nttRu."
_DEFLATED = zipfile.ZIP_DEFLATED

CASES = (
    Case(
        f"a call of one of {len(FUNCTIONS)} functions that run code, open files or connections, by GLOBAL",
        "picklescan, fickling, modelscan",
        tuple((f"{number}.pkl", _by_lines(name)) for number, name in enumerate(FUNCTIONS)),
    ),
    Case(
        "the same by STACK_GLOBAL",
        "picklescan, fickling",
        tuple((f"{number}.pkl", _by_stack(name)) for number, name in enumerate(FUNCTIONS)),
    ),
    Case(
        "`os.system`, in each protocol as Python writes it",
        "picklescan, fickling",
        tuple((f"{protocol}.pkl", files.pickled(protocol)) for protocol in range(6)),
    ),
    Case(
        "a call by INST, and by OBJ",
        "picklescan, fickling",
        (("inst.pkl", b"(S'x'\ni__builtin__\nexec\n."), ("obj.pkl", b"(cpty\nspawn\nS'id'\no.")),
    ),
    Case(
        "a name put together from texts in the memo; the same with bytes after the end; from quoted texts",
        "picklescan, modelscan",
        (
            ("memo.pkl", _from_memo()),
            ("after.pkl", _from_memo() + b"\n\n\t\t"),
            ("quoted.pkl", b"S'os'\nS'system'\n" + pickle.STACK_GLOBAL + b"S'ls'\n\x85R."),
        ),
    ),
    Case(
        "names that make a scanner give up: from an empty place of the memo, of a number, not UTF-8",
        "picklescan",
        (
            ("missing.pkl", _odd_stack(_text("os") + b"\x94h\x03h\x00")),
            ("number.pkl", _odd_stack(b"J\x2a\x00\x00\x00\x94" + _text("os") + b"\x94h\x00h\x01")),
            ("bytes.pkl", b"\x80\x02cos\nsystem\nVx\n\x85R0cmod\n\xf8\n."),
        ),
    ),
    Case("a name with dots: `eval.__call__`", "modelscan", (("dots.pkl", _by_lines("builtins eval.__call__")),)),
    Case(
        "a pickle in the bytes of another one",
        "picklescan, modelscan",
        (("nested.pkl", b"\x80\x05cpickle\nloads\nB" + struct.pack("<I", len(_EVAL)) + _EVAL + b"\x85R0N."),),
    ),
    Case("a second pickle after a harmless one", "picklescan", (("second.pkl", _HARMLESS + _EVAL),)),
    Case(
        "a pickle that is cut off, or broken after the call",
        "picklescan",
        (("cut.pkl", _EVAL[:-1]), ("broken.pkl", b"cbuiltins\nexec\n(X>\nf = 1tRX.")),
    ),
    Case(
        "a pickle under another name",
        "picklescan",
        tuple((name, _EVAL) for name in ("weights.bin", "data.txt", "model", "model.safetensors", "config.json")),
    ),
    Case(
        "a pickle in a zip: as `data.pkl`, under another name, compressed, in a zip in a zip",
        "picklescan, modelscan",
        (
            ("model.pt", files.zipped({"archive/data.pkl": _EVAL})),
            ("model.zip", files.zipped({"data.txt": _EVAL})),
            ("model.keras", files.zipped({"data.pkl": _EVAL}, _DEFLATED)),
            ("outer.zip", files.zipped({"inner.zip": files.zipped({"data.pkl": _EVAL})})),
        ),
    ),
    Case(
        "a zip whose local header and directory name its member differently; with a wrong CRC",
        "picklescan",
        (
            ("names.zip", _changed(files.zipped({"data.pkl": _EVAL}), b"data.pkl", b"datap.kl", 1)),
            ("crc.zip", _changed(files.zipped({"data.pkl": _EVAL}), struct.pack("<I", zlib.crc32(_EVAL)), b"1234")),
        ),
    ),
    Case(
        "a zip with the bits for encryption set, which PyTorch ignores",
        "picklescan",
        tuple((f"{bits:#x}.zip", _flagged(bits)) for bits in (0x1, 0x20, 0x40)),
    ),
    Case(
        "a checkpoint of PyTorch before 1.6, with its magic number and with another one",
        "picklescan",
        tuple((f"{at}.pt", _pytorch_before_1_6(magic)) for at, magic in enumerate((0x1950A86A20F9469CFC6C, 7))),
    ),
    Case(
        "an array of objects of NumPy; in an `.npz`, compressed or not",
        "picklescan",
        (
            ("array.npy", _objects(_EVAL)),
            ("arrays.npz", files.zipped({"a.npy": _objects(_EVAL)})),
            ("compressed.npz", files.zipped({"a.npy": _objects(_EVAL)}, _DEFLATED)),
        ),
    ),
    Case("a picture called `.pt`", "picklescan, modelscan", (("picture.pt", b"\x89PNG\r\n\x1a\n"),), harmful=False),
    Case(
        "pickles of lists, dictionaries and numbers, in each protocol",
        "picklescan, fickling",
        tuple((f"{protocol}.pkl", pickle.dumps({"a": [1, 2.0, None]}, protocol)) for protocol in range(6)),
        harmful=False,
    ),
    Case(
        "weights of PyTorch: tensors in an OrderedDict",
        "picklescan, modelscan",
        (
            ("state.pt", files.zipped({"archive/data.pkl": _STATE, "archive/data/0": bytes(16)})),
            ("ordered.pkl", pickle.dumps(OrderedDict(a=1), 2)),
        ),
        harmful=False,
    ),
    Case(
        "arrays of numbers of NumPy, alone and in an `.npz`",
        "picklescan",
        (("numbers.npy", files.numpy()), ("numbers.npz", files.zipped({"a.npy": files.numpy()}, _DEFLATED))),
        harmful=False,
    ),
    Case(
        "a pickle that names classes of scikit-learn",
        "modelscan",
        (("model.pkl", b"\x80\x02csklearn.linear_model._logistic\nLogisticRegression\n)\x81."),),
        harmful=False,
    ),
    Case("a list that grows without bound when it is copied or printed", "fickling", (("grows.pkl", _expanding()),)),
    Case("a pickle in a 7z archive", "picklescan", (("model.7z", b"7z\xbc\xaf\x27\x1c" + bytes(26)),)),
)
