"""Verifying ECDSA signatures on the NIST curves (FIPS 186-5, 6.4.2; curves: SP 800-186, 3.2.1).

Verifying uses only public values, so its duration reveals no secret.  This code must never handle a private key: the
times of ``pow`` and ``if`` depend on the numbers (docs/adr/0017-signatures.md).
"""

import hashlib
from typing import NamedTuple

_SEQUENCE, _INTEGER = 0x30, 0x02
# Points in Jacobian coordinates: (x / z², y / z³); z of 0 is the point at infinity.
_Point = tuple[int, int, int]
_INFINITY: _Point = (1, 1, 0)


class Curve(NamedTuple):
    """A curve y² = x³ - 3x + b over the integers modulo ``p``, its generator and order, and the hash that OMS uses."""

    name: str
    hash_name: str
    p: int
    b: int
    order: int
    generator: tuple[int, int]

    @property
    def size_bytes(self) -> int:
        """The size of one coordinate in bytes."""
        return (self.p.bit_length() + 7) // 8

    def has(self, x: int, y: int) -> bool:
        """Whether this is a point of the curve (the point at infinity has no coordinates)."""
        return x < self.p and y < self.p and (y * y - (x * x * x - 3 * x + self.b)) % self.p == 0


P256 = Curve(
    "P-256",
    "sha256",
    2**256 - 2**224 + 2**192 + 2**96 - 1,
    0x5AC635D8AA3A93E7B3EBBD55769886BC651D06B0CC53B0F63BCE3C3E27D2604B,
    0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551,
    (
        0x6B17D1F2E12C4247F8BCE6E563A440F277037D812DEB33A0F4A13945D898C296,
        0x4FE342E2FE1A7F9B8EE7EB4A7C0F9E162BCE33576B315ECECBB6406837BF51F5,
    ),
)
P384 = Curve(
    "P-384",
    "sha384",
    2**384 - 2**128 - 2**96 + 2**32 - 1,
    0xB3312FA7E23EE7E4988E056BE3F82D19181D9C6EFE8141120314088F5013875AC656398D8A2ED19D2A85C8EDD3EC2AEF,
    0xFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFC7634D81F4372DDF581A0DB248B0A77AECEC196ACCC52973,
    (
        0xAA87CA22BE8B05378EB1C71EF320AD746E1D3B628BA79B9859F741E082542A385502F25DBF55296C3A545E3872760AB7,
        0x3617DE4A96262C6F5D9E98BF9292DC29F8F41DBD289A147CE9DA3113B5F0B8C00A60B1CE1D7E819D7A431D7C90EA0E5F,
    ),
)
P521 = Curve(
    "P-521",
    "sha512",
    2**521 - 1,
    0x0051953EB9618E1C9A1F929A21A0B68540EEA2DA725B99B315F3B8B489918EF109E156193951EC7E937B1652C0BD3BB1BF073573DF883D2C34F1EF451FD46B503F00,
    0x01FFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFA51868783BF2F966B7FCC0148F709A5D03BB5C9B8899C47AEBB6FB71E91386409,
    (
        0x00C6858E06B70404E9CD9E3ECB662395B4429C648139053FB521F828AF606B4D3DBAA14B5E77EFE75928FE1DC127A2FFA8DE3348B3C1856A429BF97E7E31C2E5BD66,
        0x011839296A789A3BC0045C8A5FB42C7D1BD998F54449579B446817AFBD17273E662C97EE72995EF42640C550B9013FAD0761353C7086A272C24088BE94769FD16650,
    ),
)
CURVES = (P256, P384, P521)


def is_signed(curve: Curve, key: tuple[int, int], message: bytes, signature: bytes) -> bool:
    """Whether ``signature`` is valid for ``message``, hashed by the curve's hash, and the public key ``key``.

    The signature is DER (RFC 3279, 2.2.3); the key is a point of the curve.
    """
    try:
        r, s = _read_signature(signature)
    except ValueError:
        return False
    if not (0 < r < curve.order and 0 < s < curve.order):
        return False
    # No hash has more bits than its curve's order, so it is used whole.
    hashed = int.from_bytes(hashlib.new(curve.hash_name, message).digest(), "big")
    inverse = pow(s, -1, curve.order)
    x, _, z = _sum_of_products(curve, hashed * inverse % curve.order, key, r * inverse % curve.order)
    return z != 0 and x * pow(z, -2, curve.p) % curve.p % curve.order == r


def _sum_of_products(curve: Curve, times: int, key: tuple[int, int], key_times: int) -> _Point:
    """``times`` the generator plus ``key_times`` the key, computed together from the highest bit (Shamir's trick)."""
    generator, other = (*curve.generator, 1), (*key, 1)
    added = (None, generator, other, _add(generator, other, curve.p))
    found = _INFINITY
    for bit in reversed(range(curve.order.bit_length())):
        found = _double(found, curve.p)
        point = added[(times >> bit & 1) | (key_times >> bit & 1) << 1]
        if point is not None:
            found = _add(found, point, curve.p)
    return found


def _double(point: _Point, p: int) -> _Point:
    """Twice a point (https://hyperelliptic.org/EFD/g1p/auto-shortw-jacobian-3.html, dbl-2001-b)."""
    x, y, z = point
    if not z:
        return point
    delta, gamma = z * z % p, y * y % p
    beta, alpha = x * gamma % p, 3 * (x - delta) * (x + delta) % p
    twice_x = (alpha * alpha - 8 * beta) % p
    return twice_x, (alpha * (4 * beta - twice_x) - 8 * gamma * gamma) % p, 2 * y * z % p


def _add(first: _Point, second: _Point, p: int) -> _Point:
    """The sum of two points (the same page, add-1998-cmo-2)."""
    x1, y1, z1 = first
    x2, y2, z2 = second
    if not z1:
        return second
    if not z2:
        return first
    square1, square2 = z1 * z1 % p, z2 * z2 % p
    u1, u2 = x1 * square2 % p, x2 * square1 % p
    s1, s2 = y1 * z2 * square2 % p, y2 * z1 * square1 % p
    h, r = (u2 - u1) % p, (s2 - s1) % p
    if not h:
        # The same point, or one and its inverse.
        return _INFINITY if r else _double(first, p)
    square = h * h % p
    cube, v = h * square % p, u1 * square % p
    x3 = (r * r - cube - 2 * v) % p
    return x3, (r * (v - x3) - s1 * cube) % p, z1 * z2 * h % p


def _read_signature(der: bytes) -> tuple[int, int]:
    """Read the numbers r and s; ``ValueError`` for anything but their only DER encoding (X.690, 8.3 and 10.1)."""
    body, after = _element(der, _SEQUENCE)
    first, rest = _element(body, _INTEGER)
    second, behind = _element(rest, _INTEGER)
    if after or behind:
        raise ValueError(der)
    return _natural(first), _natural(second)


def _element(der: bytes, tag: int) -> tuple[bytes, bytes]:
    """The content of the first element, which must have this tag, and the bytes after it."""
    if len(der) < 2 or der[0] != tag:
        raise ValueError(der)
    size, start = der[1], 2
    if size == 0x81 and len(der) > 2 and der[2] > 0x7F:
        # Longer ones no signature has.
        size, start = der[2], 3
    elif size > 0x7F:
        raise ValueError(der)
    if len(der) < start + size:
        raise ValueError(der)
    return der[start : start + size], der[start + size :]


def _natural(content: bytes) -> int:
    if not content or content[0] > 0x7F or (len(content) > 1 and content[0] == 0 and content[1] < 0x80):
        raise ValueError(content)
    return int.from_bytes(content, "big")
