"""What a model is made of: names that stay within, patterns, and the JSON that is read again."""

import hashlib
import json
import re
import shlex
from functools import cache

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lading.errors import IntegrityError, LadingError, Unsupported, UsageError
from lading.model.digest import HEX_DIGITS, STRONG, Digest
from lading.model.listing import GeneratedFile, ListedFile, Listing
from lading.model.manifest import File, Manifest
from lading.model.paths import safe_path
from lading.model.pattern import exact_pattern
from lading.model.signature import Signature

CRC = Digest("crc32", "0" * 8)
SEGMENTS = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="/\0"), min_size=1, max_size=20).filter(
    lambda text: text not in (".", "..", ".lading", ".lading.manifest")
)
PATHS = st.lists(SEGMENTS, min_size=1, max_size=4).map("/".join)


@st.composite
def digests(draw: st.DrawFn) -> Digest:
    algorithm = draw(st.sampled_from(sorted(HEX_DIGITS)))
    length = HEX_DIGITS[algorithm]
    return Digest(algorithm, draw(st.text("0123456789abcdef", min_size=length, max_size=length)))


@st.composite
def composites(draw: st.DrawFn) -> Digest:
    """Those whose parts a manifest tells."""
    sizes = draw(st.lists(st.integers(1, 2**50), min_size=2, max_size=3))
    return draw(digests().filter(lambda digest: digest.algorithm in STRONG))._replace(part_sizes_bytes=tuple(sizes))


SIGNATURES = st.builds(Signature, st.text("abc "), st.text("abc:/"), st.just("model.sig"), digests())


@st.composite
def manifests(draw: st.DrawFn) -> Manifest:
    files = [
        File(
            path,
            draw(st.integers(0, 2**50)),
            draw(digests()),
            draw(st.none() | st.text(max_size=20)),
            verified=tuple(draw(st.lists(digests() | composites(), max_size=2, unique_by=str))),
        )
        for path in draw(st.lists(PATHS, max_size=6, unique=True))
    ]
    try:
        manifest = Manifest.of(files)
    except IntegrityError:
        # "a" and "a/b": covered below.
        manifest = Manifest.of(files[:1])
    return manifest._replace(
        requested=draw(st.text(st.characters(exclude_categories=["Cs"]), max_size=20)),
        resolved="s3://b/k",
        version=draw(st.text(st.characters(exclude_categories=["Cs"]), max_size=5)),
        registry="r",
        metadata=draw(st.dictionaries(st.text("abc"), st.integers() | st.text("abc") | st.booleans(), max_size=3)),
        archives=tuple(draw(st.lists(st.just(File("a.tar", 5, CRC, "v")), max_size=2))),
        seconds=draw(st.floats(0, 1e6)),
        signature=draw(st.none() | SIGNATURES),
    )


@settings(deadline=None)
@given(manifests())
def test_a_manifest_is_read_as_it_was_written(manifest: Manifest) -> None:
    assert Manifest.loads(manifest.dumps()) == manifest


@settings(deadline=None, max_examples=200)
@given(manifests(), st.integers(0, 5000), st.binary(min_size=1, max_size=5))
def test_a_manifest_that_was_damaged_is_refused_or_says_the_same(manifest: Manifest, at: int, patch: bytes) -> None:
    data = bytearray(manifest.dumps().encode())
    at %= len(data)
    data[at : at + len(patch)] = patch
    try:
        found = Manifest.loads(data.decode("utf-8", "replace"))
    except (IntegrityError, Unsupported):
        return
    # Names, sizes and digests are under the manifest's own digest; notes are not.
    assert [(file.path, file.size_bytes, file.digest) for file in found.files] == [
        (file.path, file.size_bytes, file.digest) for file in manifest.files
    ]


def as_json(**changes: object) -> str:
    manifest = Manifest.of([File("a", 1, CRC, "v")])
    return json.dumps({**manifest.to_json(), **changes})


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{",
        "[]",
        "null",
        "5",
        '"x"',
        "{}",
        '{"format": 1}',
        "[" * 100_000,
        as_json(files=None),
        as_json(files=[5]),
        as_json(files=[{}]),
        as_json(files={"a": 1}),
        as_json(files=[]),
        as_json(digest="crc32:00000000"),
        as_json(digest=None),
        json.dumps({name: value for name, value in json.loads(as_json()).items() if name != "digest"}),
        as_json(archives=5),
        as_json(files=[{"path": "../evil", "size": 1, "digest": "crc32:00000000", "verified": [], "validator": None}]),
        as_json(files=[{"path": 5, "size": 1, "digest": "crc32:00000000", "verified": [], "validator": None}]),
        as_json(files=[{"path": "a", "size": 1, "digest": "crc32:xyz", "verified": [], "validator": None}]),
        as_json(files=[{"path": "a", "size": 1, "digest": 5, "verified": [], "validator": None}]),
        as_json(files=[{"path": "a", "size": 1, "digest": "crc32:00000000", "verified": [], "validator": 5}]),
        *(
            as_json(**{fact: 5})
            for fact in ("requested", "resolved", "origin", "version", "registry", "pin", "opened_by", "asked")
        ),
        as_json(last_known=5),
        as_json(resolved="a\x1b[31m"),
        as_json(metadata=5),
        as_json(seconds="x"),
        as_json(patterns=[5]),
        as_json(folders=["../evil"]),
    ],
)
def test_anything_else_is_no_manifest(text: str) -> None:
    with pytest.raises(IntegrityError):
        Manifest.loads(text)


def test_another_format_is_unsupported_and_not_damaged() -> None:
    with pytest.raises(Unsupported, match="format 2"):
        Manifest.loads(as_json(format=2))


@pytest.mark.parametrize("sizes", [[0, 1], [-1, 2], ["1", 2], [True, 1], [1.5], 7, "ab"])
def test_parts_of_impossible_sizes_are_refused(sizes: object) -> None:
    digest = Digest("sha256", "1" * 64, (1, 1))
    manifest = Manifest.of([File("a", 1, CRC, "v", verified=(digest,))])
    document = manifest.to_json()
    document["files"][0]["part_sizes"] = {str(digest): sizes}
    with pytest.raises(IntegrityError):
        Manifest.loads(json.dumps(document))


def test_a_composite_digest_of_a_weak_algorithm_stays_as_words() -> None:
    file = File("a", 1, CRC, "v", verified=(Digest("sha1", "1" * 40, (1, 1)),))
    text = Manifest.of([file]).dumps()
    assert "of 2 parts" in text
    assert Manifest.loads(text).files[0].verified == ()


# ---- names ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "path",
    [
        "",
        "/",
        "/etc/passwd",
        "..",
        "../x",
        "a/../b",
        "a/..",
        ".",
        "./a",
        "a/.",
        "a//b",
        "a/",
        "a\0b",
        ".lading",
        ".lading/x",
        ".lading.manifest",
        ".lading.manifest/x",
        "x" * 256,
        "a/" + "ü" * 128,
        "\ud800",
    ],
)
def test_a_name_that_leaves_or_is_not_the_models_is_refused(path: str) -> None:
    with pytest.raises(IntegrityError, match="the origin lists the name"):
        safe_path(path)
    with pytest.raises(IntegrityError):
        Manifest.of([File(path, 1, CRC)])
    with pytest.raises(IntegrityError):
        Listing.of([ListedFile(path, 1)]).refuse_faults()


@pytest.mark.parametrize(
    "path",
    [
        "a",
        "a/b",
        "..a",
        "a..",
        "...",
        ".hidden",
        "a/.lading",
        "a/.lading.manifest",
        ".ladingx",
        "x" * 255,
        "a b",
        "a\\..\\b",
        "~",
        "-rf",
    ],
)
def test_any_other_name_is_kept_as_it_is(path: str) -> None:
    assert safe_path(path) == path


@given(PATHS)
def test_every_path_of_ordinary_segments_is_safe(path: str) -> None:
    if max(len(segment.encode()) for segment in path.split("/")) <= 255:
        assert safe_path(path) == path


@given(st.text(max_size=30))
def test_a_safe_path_never_leaves_its_folder(path: str) -> None:
    import posixpath

    try:
        safe_path(path)
    except IntegrityError:
        return
    joined = posixpath.normpath(posixpath.join("/root/dest", path))
    assert joined == f"/root/dest/{path}"


def test_a_strange_name_is_shown_escaped() -> None:
    with pytest.raises(IntegrityError) as caught:
        safe_path("../\x1b[31m\n")
    assert "\x1b" not in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("paths", "refused"),
    [
        (["a", "a"], True),
        (["a", "a/b"], True),
        (["a/b/c", "a"], True),
        (["a/b", "a-b", "a.b", "a/b/c"], True),
        (["a", "a-b", "ab/c", "a.b"], False),
        (["a/b", "a/c", "b"], False),
    ],
)
def test_paths_that_stand_in_each_others_way_are_refused(paths: list[str], refused: bool) -> None:
    files = [File(path, 1, CRC) for path in paths]
    listed = Listing.of(ListedFile(path, 1) for path in paths)
    if refused:
        with pytest.raises(IntegrityError):
            Manifest.of(files)
        with pytest.raises(IntegrityError):
            listed.refuse_faults()
    else:
        listed.refuse_faults()
        assert [file.path for file in Manifest.of(files).files] == sorted(paths)


def test_the_identity_of_a_tree_is_its_names_sizes_and_digests() -> None:
    def tree(*files: File, **notes: object) -> str:
        return str(Manifest.of(files)._replace(**notes).digest)

    one = File("a", 1, CRC, "v1")
    same = tree(one)
    assert tree(one._replace(validator="v2"), requested="elsewhere", seconds=5.0) == same
    assert tree(one._replace(size_bytes=2)) != same
    assert tree(one._replace(path="b")) != same
    assert tree(one._replace(digest=Digest("crc32", "1" * 8))) != same
    assert tree(one, File("b", 1, CRC)) != same


# ---- digests -------------------------------------------------------------------------------


@given(digests())
def test_a_digest_is_read_as_it_is_printed(digest: Digest) -> None:
    assert Digest.parse(str(digest)) == digest
    assert Digest.parse(str(digest).upper()) == digest


@pytest.mark.parametrize(
    "text",
    ["", "sha256", "sha256:", "sha256:xyz", "sha256:" + "0" * 63, "sha256:" + "g" * 64, "rot13:00", ":00", "0" * 64],
)
def test_anything_else_is_no_digest(text: str) -> None:
    with pytest.raises(UsageError, match="is not a"):
        Digest.parse(text)


# ---- patterns ------------------------------------------------------------------------------


def oracle(pattern: str, path: str) -> bool:
    """fnmatch told again, without a regular expression: ``*`` any run, ``?`` one, ``[…]`` one of."""

    @cache
    def match(p: int, s: int) -> bool:
        if p == len(pattern):
            return s == len(path)
        head = pattern[p]
        if head == "*":
            return match(p + 1, s) or (s < len(path) and match(p, s + 1))
        if s == len(path):
            return False
        if head == "[":
            end = pattern.find("]", p + 2)
            if end > 0:
                inside = pattern[p + 1 : end]
                negated = inside.startswith("!")
                return ((path[s] in inside.removeprefix("!")) != negated) and match(end + 1, s + 1)
        return (head == "?" or head == path[s]) and match(p + 1, s + 1)

    return match(0, 0)


PATTERNS = st.lists(
    st.sampled_from(["*", "?", "a", "b", "/", ".", "[ab]", "[!a]", "a/", "*.b"]), min_size=1, max_size=5
).map("".join)
SMALL_PATHS = st.lists(st.sampled_from(["a", "b", "ab", "a.b", "b.a"]), min_size=1, max_size=3).map("/".join)


@settings(deadline=None, max_examples=300)
@given(st.lists(SMALL_PATHS, max_size=8), st.lists(PATTERNS, max_size=3), st.lists(PATTERNS, max_size=3))
def test_selection_is_what_a_plain_reading_of_the_patterns_gives(
    paths: list[str], allow: list[str], ignore: list[str]
) -> None:
    listed = Listing(tuple(ListedFile(path, 1) for path in paths))

    def hits(patterns: list[str], path: str) -> bool:
        return any(oracle(pattern + "*" * pattern.endswith("/"), path) for pattern in patterns)

    wanted = [path for path in paths if (not allow or hits(allow, path)) and not hits(ignore, path)]
    assert [file.path for file in listed.select(allow, ignore).files] == wanted


@pytest.mark.parametrize(
    ("allow", "ignore", "left"),
    [
        ([], [], ["a.json", "b.bin", "w/c.bin", "w/d/e.json"]),
        (["*.json"], [], ["a.json", "w/d/e.json"]),
        (["w/"], [], ["w/c.bin", "w/d/e.json"]),
        (["w/*"], ["*.json"], ["w/c.bin"]),
        ([], ["*"], []),
        (["A.json"], [], []),
        (["?.bin"], [], ["b.bin"]),
    ],
)
def test_selection_examples(allow: list[str], ignore: list[str], left: list[str]) -> None:
    listed = Listing.of(ListedFile(path, 1) for path in ("a.json", "b.bin", "w/c.bin", "w/d/e.json"))
    assert [file.path for file in listed.select(allow, ignore).files] == left


@given(st.binary(max_size=60))
def test_reading_any_text_raises_nothing_but_ladings_errors(data: bytes) -> None:
    with pytest.raises(LadingError):
        Manifest.loads(data.decode("latin-1"))


def test_sizes_that_are_no_sizes_are_refused() -> None:
    for size in ("1", -1, 1.5, True, [1]):
        manifest = Manifest((File("a", size, CRC, "v"),))
        item = {"path": "a", "size": size, "digest": "crc32:00000000", "verified": [], "validator": "v"}
        with pytest.raises(IntegrityError):
            Manifest.loads(as_json(files=[item], digest=str(manifest.digest)))


@pytest.mark.parametrize("size", [-1, 2**63, 10**400])
def test_what_an_origin_says_of_a_size_may_not_be_one(size: int) -> None:
    with pytest.raises(IntegrityError, match="'a' is said to have"):
        Listing.of([ListedFile("a", size)]).refuse_faults()


def test_hex_is_lower_case_everywhere() -> None:
    assert re.fullmatch("[0-9a-f]+", Digest.parse("MD5:" + "ABCDEF01" * 4).value)


def test_a_generated_file_comes_beside_the_one_it_belongs_to_and_replaces_none() -> None:
    generated = [GeneratedFile("meta", b"text", beside="MLmodel")]
    added = Listing.of([ListedFile("MLmodel", 1)]).with_generated(generated).by_path()["meta"]
    assert added.content == b"text"
    assert [str(digest) for digest in added.declared] == [f"sha256:{hashlib.sha256(b'text').hexdigest()}"]
    for files in (
        [ListedFile("other", 1)],
        [ListedFile("MLmodel", 1), ListedFile("meta", 2)],
        [ListedFile("deep/MLmodel", 1)],
    ):
        assert Listing.of(files).with_generated(generated) == Listing.of(files)
    with pytest.raises(IntegrityError, match="also the folder"):
        Listing.of([ListedFile("MLmodel", 1), ListedFile("meta/a", 2)]).with_generated(generated).refuse_faults()


# ---- what is wanted, before it is judged


ANY_PATHS = st.text(
    st.sampled_from(["a", "b", "/", ".", "-", "*", "?", "[", "]", "!", " ", "\n", "\x1b", "\udcff", "é"]), max_size=6
)


@given(ANY_PATHS)
def test_the_exact_pattern_of_a_path_matches_it_and_can_be_typed(path: str) -> None:
    pattern = exact_pattern(path)
    assert not Listing.of([ListedFile(path, 1)]).select((), [pattern]).files
    assert pattern.isprintable()
    assert not pattern.startswith("-")


@given(
    st.text(st.sampled_from("ab/.*?[]"), min_size=1, max_size=6),
    st.text(st.sampled_from("ab/.*?[]"), min_size=1, max_size=6),
)
def test_the_exact_pattern_of_a_path_matches_no_other(path: str, other: str) -> None:
    left = Listing.of([ListedFile(other, 1)]).select((), [exact_pattern(path)]).files
    assert bool(left) == (other != path and not (path.endswith("/") and other.startswith(path)))


@given(ANY_PATHS.filter(lambda path: not path.isprintable()), st.text(st.sampled_from("ab/.-*?[]! "), max_size=6))
def test_the_exact_pattern_of_what_cannot_be_printed_matches_nothing_that_can_be_typed(path: str, other: str) -> None:
    assert Listing.of([ListedFile(other, 1)]).select((), [exact_pattern(path)]).files


@given(st.sets(ANY_PATHS, max_size=8))
def test_hints_lead_to_a_manifest_without_faults(paths: set[str]) -> None:
    listed = Listing.of([ListedFile(path, 1, locator=f"model/{path}") for path in paths])
    for _ in range(len(paths) + 1):
        try:
            listed.refuse_faults()
        except IntegrityError as error:
            patterns = [
                word for word in shlex.split(error.hint.partition("--")[2]) if word not in ("--ignore", "ignore")
            ]
            fewer = listed.select((), [word for word in patterns if word not in ("delivers", "the", "rest")])
            assert len(fewer.files) < len(listed.files)
            listed = fewer
        else:
            assert Manifest.of(File(file.path, 1, CRC) for file in listed.files).by_path() == {
                file.path: File(file.path, 1, CRC) for file in listed.files
            }
            return
    raise AssertionError(listed)


@pytest.mark.parametrize(
    ("file", "names", "pattern"),
    [
        (ListedFile("/tmp.log", 1, locator="llm//tmp.log"), "'llm//tmp.log', which begins with a slash", "/tmp.log"),
        (ListedFile("../x", 1, locator="llm/../x"), "'llm/../x', which has an empty, '.' or '..' segment", "../x"),
        (ListedFile("a//b", 1, locator="elsewhere"), "'a//b', which", "a//b"),
        (ListedFile("\udcff*", 1), "'\\\\udcff*', which is not valid Unicode", "'[! -~][*]'"),
        (ListedFile("-\0", 1), "'-\\\\x00', which holds a NUL", "'[-][! -~]'"),
        (ListedFile("big", -5, locator="m/big"), "'m/big' is said to have -5 bytes", "big"),
        (ListedFile("gone", None, refusal=Unsupported("gone is a pipe", hint="remove it")), "gone is a pipe", "gone"),
    ],
)
def test_the_error_names_what_the_origin_has_and_the_hint_how_to_leave_it_out(
    file: ListedFile, names: str, pattern: str
) -> None:
    with pytest.raises(LadingError) as caught:
        Listing.of([file, ListedFile("config.json", 1)]).refuse_faults()
    assert names in caught.value.message
    assert caught.value.hint.removeprefix("remove it; ") == f"--ignore {pattern} delivers the rest"


def test_several_faults_are_named_together_and_many_are_counted() -> None:
    strays = [ListedFile(f"/{number}", 1) for number in range(5)]
    with pytest.raises(IntegrityError) as caught:
        Listing.of(strays[:2]).refuse_faults()
    assert caught.value.message.endswith("; neither can be delivered: /1")
    assert caught.value.hint == "--ignore /0 --ignore /1 delivers the rest"
    with pytest.raises(IntegrityError) as caught:
        Listing.of(strays).refuse_faults()
    assert caught.value.message.endswith("; neither can be delivered: /1, /2 and more")
    assert caught.value.hint == "leave them all out, as by --ignore /0 --ignore /1 --ignore /2"


def test_of_a_file_that_is_also_a_folder_either_can_be_left_out() -> None:
    listed = Listing.of([ListedFile("onnx", 0, locator="m/onnx"), ListedFile("onnx/a", 1, locator="m/onnx/a")])
    with pytest.raises(IntegrityError, match="'m/onnx' is a file, and also the folder of 'm/onnx/a'") as caught:
        listed.refuse_faults()
    assert "--ignore onnx delivers the rest" in caught.value.hint
    for ignore in ("onnx", "onnx/"):
        listed.select((), [ignore]).refuse_faults()


def test_two_files_of_one_name_are_no_matter_of_patterns() -> None:
    with pytest.raises(IntegrityError, match="both called 'm/a'") as caught:
        Listing.of([ListedFile("a", 1, locator="m/a"), ListedFile("a", 2, locator="m/a")]).refuse_faults()
    assert "--ignore" not in caught.value.hint


@pytest.mark.parametrize(
    ("allow", "ignore", "stays"),
    [
        ([], [], True),
        (["*.json"], [], True),
        (["lost/a.json"], [], True),
        (["lo*"], [], True),
        (["config.json"], [], False),
        (["other/*"], [], False),
        ([], ["lost/"], False),
        ([], ["lost/*"], False),
        ([], ["lost*"], False),
        ([], ["*.json"], True),
    ],
)
def test_a_folder_that_was_not_looked_into_stays_where_something_in_it_could_be_wanted(
    allow: list[str], ignore: list[str], stays: bool
) -> None:
    listed = Listing.of([ListedFile("lost/", None, refusal=Unsupported("not to be read"))])
    assert bool(listed.select(allow, ignore).files) is stays
