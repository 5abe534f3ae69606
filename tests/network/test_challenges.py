"""WWW-Authenticate is a list: of challenges, with the parameters that belong to each."""

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lading.network.challenges import Challenge, parse_challenges

TOKENS = st.text("abcXYZ019!#$%&'*+.^_`|~-", min_size=1, max_size=8)
VALUES = TOKENS | st.text(st.characters(min_codepoint=0x20, max_codepoint=0xFF), max_size=12)
TOKEN68 = st.from_regex(r"[A-Za-z0-9._~+/-]{1,9}={0,2}", fullmatch=True)
PARAMETERS = st.dictionaries(TOKENS.map(str.lower), st.tuples(VALUES, st.booleans()), max_size=3)
CHALLENGES = st.lists(st.tuples(TOKENS, PARAMETERS | TOKEN68), max_size=4)
COMMA = st.sampled_from([",", ", ", " ,\t", ", ,"])


def written(value, bare):
    is_token = value and all(character.isalnum() or character in "!#$%&'*+.^_`|~-" for character in value)
    if bare and is_token and value.isascii():
        return value
    return '"' + value.replace("\\", "\\\\").replace('"', '\\"') + '"'


@given(CHALLENGES, COMMA)
def test_a_list_is_read_as_it_was_written(challenges, comma):
    parts, expected = [], []
    for scheme, about in challenges:
        known = about if isinstance(about, dict) else {}
        told = [f"{name}={written(*value)}" for name, value in known.items()] or ([about] if about else [])
        parts.append(comma.join([f"{scheme} {told[0]}" if told else scheme, *told[1:]]))
        expected.append(Challenge(scheme.lower(), {name: value for name, (value, _) in known.items()}))
    assert parse_challenges(comma.join(parts)) == expected


@pytest.mark.parametrize(
    ("header", "expected"),
    [
        ("", []),
        (" , ,", []),
        ("Basic", [("basic", {})]),
        ('BASIC REALM="X"', [("basic", {"realm": "X"})]),
        ('Bearer realm = "x" , service = y', [("bearer", {"realm": "x", "service": "y"})]),
        # An example of RFC 9110, 11.6.1.
        (
            'Basic realm="simple", Newauth realm="apps", type=1, title="Login to \\"apps\\""',
            [("basic", {"realm": "simple"}), ("newauth", {"realm": "apps", "type": "1", "title": 'Login to "apps"'})],
        ),
        ('Negotiate YIIabc==, Basic realm="x"', [("negotiate", {}), ("basic", {"realm": "x"})]),
        ('NTLM, Negotiate, Basic realm="a, Bearer b=c"', [("ntlm", {}), ("negotiate", {}), ("basic", {"realm": "a, Bearer b=c"})]),
        # No grammar allows these, and servers write them.
        ("Bearer realm=https://h/token?a=b,service=s", [("bearer", {"realm": "https://h/token?a=b", "service": "s"})]),
        ('Bearer realm="x" service="y"', [("bearer", {"realm": "x", "service": "y"})]),
        ('realm="x", Basic', [("basic", {})]),
        ('Bearer realm="never closed, Basic', [("bearer", {"realm": "never closed, Basic"})]),
    ],
)  # fmt: skip
def test_a_challenge_has_its_own_parameters(header, expected):
    assert parse_challenges(header) == [Challenge(*each) for each in expected]


@pytest.mark.parametrize("text", ["a", '"', '"\\', "\\", " ", "a ", 'a="', "a=,", '"a', "a=\\"])
def test_a_long_header_takes_no_long_time(text):
    started_s = time.perf_counter()
    parse_challenges("Bearer " + text * (64_000 // len(text)))
    assert time.perf_counter() - started_s < 2
