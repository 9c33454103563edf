"""Focal loss in Triton. The mathematics is that of focal.c, and so is its exactness: no approximate instruction of a GPU is used.

WAY is 0 for losses, 1 for gradients from one per loss, 2 for gradients from one for all, 3 for losses and gradients from ones.
MODE is 0, 1 or 2 for a gamma that is that, and 3 for any. A target that is no class gives its row NaN, and so does a negative
gamma or weight.
"""
# mypy: ignore-errors

import triton
import triton.language as tl


@triton.jit
def _divide(a, b):
    """Of b between 2^-126 and 2^126: a / b; the device's own is two units off, and one step of Newton's mends it."""
    inverse = 1.0 / b
    found = a * inverse
    return found + (a - found * b) * inverse


@triton.jit
def _scaled_exp(r, shifted):
    """2^k e^r for |r| <= log(2) / 2 and -127 <= k <= 0, the least of which gives 0; k from the low bits of k + 1.5 2^23."""
    y = 1.9875691500e-4 * r + 1.3981999507e-3
    y = y * r + 8.3334519073e-3
    y = y * r + 4.1665795894e-2
    y = y * r + 1.6666665459e-1
    y = y * r + 5.0000001201e-1
    y = y * (r * r) + r + 1.0
    return y * ((shifted.to(tl.int32, bitcast=True) << 23) + 0x3F800000).to(tl.float32, bitcast=True)


@triton.jit
def _exp(a, m):
    """exp(a - m) for a <= m; what is lost in the difference is put back (Knuth's two-sum), then Cody and Waite's reduction."""
    d = a - m
    v = d - a
    lost = (a - (d - v)) - (m + v)
    # Down to where the power of two is 0. What is no number stays none; of -inf nothing can be lost, but no number says so.
    d = tl.where(d < -88.1, -88.1, d)
    lost = tl.minimum(lost, 1.0)
    shifted = d * 1.44269504 + 12582912.0
    n = shifted - 12582912.0
    return _scaled_exp((d - n * 0.693359375) + (n * 2.12194440e-4 + lost), shifted)


@triton.jit
def _twice_atanh(t):
    """log((1 + t) / (1 - t)) for |t| <= .172."""
    u = t * t
    y = ((0.22222222 * u + 0.28571429) * u + 0.4) * u + 0.66666667
    return t * u * y + 2.0 * t


@triton.jit
def _split(x):
    """A positive normal number as 2^n m with m between sqrt(1/2) and sqrt(2)."""
    bits = x.to(tl.int32, bitcast=True)
    e = (bits - 0x3F3504F3) >> 23
    return e.to(tl.float32), (bits - (e << 23)).to(tl.float32, bitcast=True)


@triton.jit
def _power(q, gamma):
    """q^gamma as 2^(gamma n) m^gamma: gamma log q as one number would be rounded to its own size, and the power with it."""
    n, m = _split(tl.where(q > 0.0, q, 1.0))
    whole = gamma * n
    rest = gamma * _twice_atanh(_divide(m - 1.0, m + 1.0))
    shifted = tl.maximum(whole + rest * 1.44269504, -126.0) + 12582912.0
    over = whole - (shifted - 12582912.0)
    found = _scaled_exp(over * 0.693359375 - over * 2.12194440e-4 + rest, shifted)
    found = tl.where(whole + rest * 1.44269504 < -126.0, 0.0, found)
    return tl.where(q > 0.0, found, tl.where(gamma == 0.0, 1.0, q))


@triton.jit
def _add(a, lost_a, b, lost_b):
    """Two sums and what each has lost: small terms that are alike would all be rounded to the same side beside a large one."""
    s = a + b
    v = s - a
    return s, lost_a + lost_b + ((a - (s - v)) + (b - v))


@triton.jit
def _sum(values):
    s, lost = tl.reduce((values, values * 0.0), 0, _add)
    return s + lost


@triton.jit
def _terms(so, ey, behind, gamma, MODE: tl.constexpr):
    """The loss without its weight, and k / s: the gradient is -so k / s at the target, e_j k / s elsewhere."""
    s = so + ey
    inverse = _divide(1.0, s)
    # Where the target is the likeliest, e_y is 1, and what 1 + so has lost is put back: -log p is exact in the small. Elsewhere
    # it is log s - (z_y - max z).
    n, m = _split(s)
    rest = tl.where(so < ey, (so - (s - 1.0)) * inverse, behind)
    nlp = n * 0.693359375 + ((_twice_atanh(_divide(m - 1.0, m + 1.0)) - n * 2.12194440e-4) + rest)
    nlp += s - s  # of what is no number, the logarithm's bits would make one
    if MODE == 0:
        return nlp, inverse
    q = so * inverse
    if MODE == 1:
        power = q
    elif MODE == 2:
        power = q * q
    else:
        power = _power(q, gamma)
    # p nlp / q = e_y nlp / so: 1 where so is 0, and 0 where e_y is, though nlp may be infinite.
    ratio = ey * _divide(tl.minimum(tl.maximum(nlp, 1e-37), 3e38), tl.maximum(so, 1e-37))
    return power * nlp, (power + gamma * power * ratio) * inverse


@triton.jit
def few(
    z,  # rows x C logits
    y,
    gamma,  # HEADS x C
    weight,  # HEADS x C
    up,
    loss,
    gradient,
    n,  # rows
    C: tl.constexpr,
    HEADS: tl.constexpr,  # row r belongs to head r % HEADS
    WAY: tl.constexpr,
    MODE: tl.constexpr,
    ROWS: tl.constexpr,
):
    """One thread per row."""
    first = tl.program_id(0) * ROWS
    row = tl.arange(0, ROWS)
    live = row < n - first
    z += first.to(tl.int64) * C
    gradient += first.to(tl.int64) * C
    y += first
    loss += first
    up += first if WAY == 1 else 0
    given = tl.load(y + row, mask=live, other=0)
    wrong = (given < 0) | (given >= C)
    t = tl.where(wrong, 0, given).to(tl.int32)
    place = (first + row) % HEADS * C + t if HEADS > 1 else t
    g = tl.load(gamma + place, mask=live, other=0.0)
    w = tl.load(weight + place, mask=live, other=0.0)
    values = ()
    for j in tl.static_range(C):
        value = tl.load(z + row * C + j, mask=live, other=0.0).to(tl.float32)
        values = values + (value,)  # triton's tuples have no star
        m = value if j == 0 else tl.maximum(m, value)
        zy = value if j == 0 else tl.where(t == j, value, zy)
    e = ()
    if C == 3:  # the largest one's exp is 1, and no number where it is infinite or none: only the two others' are computed
        is0 = (values[0] >= values[1]) & (values[0] >= values[2])
        is1 = (values[1] >= values[2]) & (is0 == 0)
        m = tl.where(is0, values[0], tl.where(is1, values[1], values[2]))
        unit = 1.0 + (m - m)
        low = _exp(tl.where(is0, values[1], values[0]), m)
        high = _exp(tl.where(is0 | is1, values[2], values[1]), m)
        e = (tl.where(is0, unit, low), tl.where(is1, unit, tl.where(is0, low, high)), tl.where(is0 | is1, high, unit))
    else:
        for j in tl.static_range(C):
            e = e + (_exp(values[j], m),)
    so = tl.zeros((ROWS,), tl.float32)
    lost = tl.zeros((ROWS,), tl.float32)
    for j in tl.static_range(C):
        one = e[j]
        other = tl.where(t == j, 0.0, one)
        if C > 4:
            so, lost = _add(so, lost, other, 0.0)
        else:
            so += other
        ey = one if j == 0 else tl.where(t == j, one, ey)
    so += lost
    value, k = _terms(so, ey, m - zy, g, MODE)
    wrong = wrong | (w < 0.0)
    if MODE == 3:  # another gamma came as a number, and was looked at
        wrong = wrong | (g < 0.0)
    none = tl.where(wrong, float("nan"), w)
    if WAY == 0 or WAY == 3:
        tl.store(loss + row, none * value, mask=live)
    if WAY != 0:
        scale = none * k
        if WAY == 1:
            scale *= tl.load(up + row, mask=live, other=0.0).to(tl.float32)
        elif WAY == 2:
            scale *= tl.load(up).to(tl.float32)
        for j in tl.static_range(C):
            tl.store(gradient + row * C + j, scale * tl.where(t == j, -so, e[j]), mask=live)


@triton.jit
def some(
    z,
    y,
    gamma,
    weight,
    up,
    loss,
    gradient,
    c,
    WAY: tl.constexpr,
    MODE: tl.constexpr,
    COLUMNS: tl.constexpr,
):
    """One program per row."""
    row = tl.program_id(0).to(tl.int64)
    given = tl.load(y + row)
    wrong = (given < 0) | (given >= c)
    t = tl.where(wrong, 0, given).to(tl.int32)
    column = tl.arange(0, COLUMNS)
    inside = column < c  # and no more: a mask of single columns would take the wide loads apart
    values = tl.load(z + row * c + column, mask=inside, other=-float("inf")).to(tl.float32)
    zy = tl.load(z + row * c + t).to(tl.float32)
    m = tl.max(values, 0)
    e = _exp(values, m)
    so = _sum(tl.where(column == t, 0.0, e))
    ey = _exp(zy, m)
    g = tl.load(gamma + t)
    value, k = _terms(so, ey, m - zy, g, MODE)
    w = tl.load(weight + t)
    wrong = wrong | (w < 0.0)
    if MODE == 3:  # another gamma came as a number, and was looked at
        wrong = wrong | (g < 0.0)
    none = tl.where(wrong, float("nan"), w)
    if WAY == 0 or WAY == 3:
        tl.store(loss + row, none * value)
    if WAY != 0:
        scale = none * k
        if WAY == 1:
            scale *= tl.load(up + row).to(tl.float32)
        elif WAY == 2:
            scale *= tl.load(up).to(tl.float32)
        tl.store(gradient + row * c + column, scale * tl.where(column == t, -so, e), mask=inside)


@triton.jit
def many(
    z,
    y,
    gamma,
    weight,
    up,
    loss,
    gradient,
    parts,  # per row: the maximum, and the sum without the target's
    c,
    WAY: tl.constexpr,
    MODE: tl.constexpr,
    COLUMNS: tl.constexpr,
):
    """One program per row, its columns in blocks."""
    row = tl.program_id(0).to(tl.int64)
    given = tl.load(y + row)
    wrong = (given < 0) | (given >= c)
    t = tl.where(wrong, 0, given).to(tl.int32)
    zy = tl.load(z + row * c + t).to(tl.float32)
    column = tl.arange(0, COLUMNS)
    if WAY == 0 or WAY == 3:
        m = -float("inf")
        so = 0.0
        for start in range(0, c, COLUMNS):
            at = start + column
            values = tl.load(z + row * c + at, mask=at < c, other=-float("inf")).to(tl.float32)
            higher = tl.maximum(m, tl.max(values, 0))
            base = tl.where(higher == -float("inf"), 0.0, higher)
            so = so * _exp(m, base) + _sum(tl.where(at == t, 0.0, _exp(values, base)))
            m = higher
        tl.store(parts + row * 2, m)
        tl.store(parts + row * 2 + 1, so)
    else:
        m = tl.load(parts + row * 2)
        so = tl.load(parts + row * 2 + 1)
    ey = _exp(zy, m)
    g = tl.load(gamma + t)
    value, k = _terms(so, ey, m - zy, g, MODE)
    w = tl.load(weight + t)
    wrong = wrong | (w < 0.0)
    if MODE == 3:  # another gamma came as a number, and was looked at
        wrong = wrong | (g < 0.0)
    none = tl.where(wrong, float("nan"), w)
    if WAY == 0 or WAY == 3:
        tl.store(loss + row, none * value)
    if WAY != 0:
        scale = none * k
        if WAY == 1:
            scale *= tl.load(up + row).to(tl.float32)
        elif WAY == 2:
            scale *= tl.load(up).to(tl.float32)
        for start in range(0, c, COLUMNS):
            at = start + column
            values = tl.load(z + row * c + at, mask=at < c, other=-float("inf")).to(tl.float32)
            tl.store(gradient + row * c + at, scale * tl.where(at == t, -so, _exp(values, m)), mask=at < c)
