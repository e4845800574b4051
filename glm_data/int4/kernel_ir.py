"""LLVM code of the CPU kernels: activations to INT8, and INT4 or INT8 weights times them (W4A8, W8A8).

The weights lie in tiles of R rows, 16 or 8 as a register holds, and 8 columns (INT8: 4), in the order in which they
are read::

    INT4  uint8[N / R, K / 8, R, 4]     byte (n, j) of a tile = columns j (low nibble) and j + 4 (high), as q + 8
    INT8  uint8[N / R, K / 4, R, 4]     byte (n, j) of a tile = column j, as q + 128

so one load brings R rows, and the 4 bytes of a row meet 4 activations broadcast to all rows: the shape of the
instruction ``vpdpbusd`` (unsigned times signed bytes, four products summed into 32 bits). AVX2 does the same with two
instructions, whose 16-bit sums hold 4 tiles of INT4 (8 products of at most 15 x 127) before they must be widened. The
8 or 128 that the weights carry too much is taken off at the start of a sum: it is that times the sum of the group's
activations, negated. Two products of whole bytes would overflow AVX2's 16 bits, so its INT8 goes by signed levels, the
sign of each moved to its activation, and nothing is taken off.

A group is at least 32 columns: one or two passes of the innermost loop. Offsets are 64-bit; memory is read in bounds
for any N that is a multiple of R and K of 32.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

_HIGH_BITS = -0x7F7F7F80
"""The highest bit of each byte of a word: flipped, it adds 128 to a signed one."""
_LINE, _AHEAD = 64, 2048
"""Bytes of a cache line, and how far ahead of a load its line is asked for."""
_STEP = 4
"""Tiles of one pass of the innermost loop."""


@dataclass(frozen=True)
class Isa:
    """An instruction set: its name, the CPU features it needs, rows a register holds, activation rows of one tile."""

    name: str
    features: tuple[str, ...]
    rows: int
    tokens: tuple[int, ...]


ISAS = (
    Isa("avx512-vnni", ("avx512f", "avx512vl", "avx512vnni", "f16c"), 16, (1, 2, 4, 8)),
    Isa("avx-vnni", ("avxvnni", "fma", "f16c"), 8, (1, 2, 4)),
    Isa("avx2", ("avx2", "fma", "f16c"), 8, (1, 2, 4)),
)
"""Known instruction sets, the fastest first."""


def module(isa: Isa, bits: int) -> str:
    """The module for weights of ``bits``: ``tile``, ``quantize``, and ``multiply_M`` for each M of ``isa.tokens``."""
    functions = [_tiling(isa, bits), _quantizing(), *(_multiply(isa, bits, tokens) for tokens in isa.tokens)]
    return "\n".join([_declarations(isa), *functions])


def tile_columns(bits: int) -> int:
    """Columns of a tile."""
    return 32 // bits


def too_much(isa: Isa, bits: int) -> int:
    """What the kernel's weights are larger than their levels, times which ``quantize`` negates an activation sum."""
    return {4: 8, 8: 0 if isa.name == "avx2" else 128}[bits]


def _declarations(isa: Isa) -> str:
    n = isa.rows
    return f"""
declare <16 x i32> @llvm.x86.avx512.vpdpbusd.512(<16 x i32>, <16 x i32>, <16 x i32>)
declare <8 x i32> @llvm.x86.avx512.vpdpbusd.256(<8 x i32>, <8 x i32>, <8 x i32>)
declare <16 x i16> @llvm.x86.avx2.pmadd.ub.sw(<32 x i8>, <32 x i8>)
declare <32 x i8> @llvm.x86.avx2.psign.b(<32 x i8>, <32 x i8>)
declare <32 x i8> @llvm.abs.v32i8(<32 x i8>, i1)
declare <8 x i32> @llvm.x86.avx2.pmadd.wd(<16 x i16>, <16 x i16>)
declare <{n} x float> @llvm.fma.v{n}f32(<{n} x float>, <{n} x float>, <{n} x float>)
declare void @llvm.prefetch.p0(ptr, i32, i32, i32)
declare <32 x i32> @llvm.umax.v32i32(<32 x i32>, <32 x i32>)
declare i32 @llvm.vector.reduce.umax.v32i32(<32 x i32>)
declare <32 x float> @llvm.rint.v32f32(<32 x float>)
declare i32 @llvm.vector.reduce.add.v32i32(<32 x i32>)
"""


_TILE = """
define void @tile(ptr noalias %in, ptr noalias %out, i64 %blocks, i64 %words) {{
entry:
  %fours = mul i64 %blocks, {fours}
  br label %rows
rows:
  %q = phi i64 [0, %entry], [%q1, %rowsend]
  %b = udiv i64 %q, {fours}
  %p = urem i64 %q, {fours}
  %row = mul i64 %q, 4
  %blockwords = mul i64 %words, {rows}
  %outblock = mul i64 %b, %blockwords
  %outrow = mul i64 %p, 4
  %out0 = add i64 %outblock, %outrow
  br label %k
k:
  %i = phi i64 [0, %rows], [%i1, %k]
{body}
  %i1 = add i64 %i, 4
  %c = icmp ult i64 %i1, %words
  br i1 %c, label %k, label %rowsend
rowsend:
  %q1 = add i64 %q, 1
  %qc = icmp ult i64 %q1, %fours
  br i1 %qc, label %rows, label %end
end:
  ret void
}}
"""
"""``tile(in, out, blocks, words)``: rows int32[R blocks, words] to tiles int32[blocks, words, R]; 4 divides words.

Four rows and four words at a time, changed as the kernels want them and transposed in registers.
"""


def _tiling(isa: Isa, bits: int) -> str:
    """:data:`_TILE` for one instruction set and kind of weights."""
    lines = []
    for n in range(4):
        lines += [
            f"  %r{n} = add i64 %row, {n}",
            f"  %o{n} = mul i64 %r{n}, %words",
            f"  %at{n} = add i64 %o{n}, %i",
            f"  %ip{n} = getelementptr i32, ptr %in, i64 %at{n}",
            f"  %w{n} = load <4 x i32>, ptr %ip{n}, align 1",
            *(_nibbles_apart(n) if bits == 4 else [f"  %v{n} = xor <4 x i32> %w{n}, splat (i32 {_HIGH_BITS})"]),
        ]
    for name, from_name, step in (("x", "v", 1), ("t", "x", 2)):
        for n in range(4):
            # The rows n & ~step and n | step exchange what lies across the diagonal of each square of that size.
            places = (4 * bool(e & step) + (e if (e ^ n) & step == 0 else e ^ step) for e in range(4))
            mask = ", ".join(f"i32 {place}" for place in places)
            both = f"<4 x i32> %{from_name}{n & ~step}, <4 x i32> %{from_name}{n | step}"
            lines.append(f"  %{name}{n} = shufflevector {both}, <4 x i32> <{mask}>")
    for n in range(4):
        lines += [
            f"  %k{n} = add i64 %i, {n}",
            f"  %ko{n} = mul i64 %k{n}, {isa.rows}",
            f"  %to{n} = add i64 %out0, %ko{n}",
            f"  %op{n} = getelementptr i32, ptr %out, i64 %to{n}",
            f"  store <4 x i32> %t{n}, ptr %op{n}, align 4",
        ]
    return _TILE.format(body="\n".join(lines), rows=isa.rows, fours=isa.rows // 4)


def _nibbles_apart(n: int) -> list[str]:
    """Columns 0 to 7 of a word, nibbles from below, as nibbles 0, 4, 1, 5, 2, 6, 3, 7: two exchanges of bits."""
    lines, word = [], f"%w{n}"
    for step, (mask, bits) in enumerate(((0x0000FF00, 8), (0x00F000F0, 4))):
        tag, last = f"{n}_{step}", f"%v{n}" if step else f"%n{n}"
        lines += [
            f"  %s{tag} = lshr <4 x i32> {word}, splat (i32 {bits})",
            f"  %d{tag} = xor <4 x i32> %s{tag}, {word}",
            f"  %m{tag} = and <4 x i32> %d{tag}, splat (i32 {mask})",
            f"  %u{tag} = shl <4 x i32> %m{tag}, splat (i32 {bits})",
            f"  %b{tag} = or <4 x i32> %m{tag}, %u{tag}",
            f"  {last} = xor <4 x i32> {word}, %b{tag}",
        ]
        word = last
    return lines


_QUANTIZE = """
define void @quantize(ptr noalias %x, ptr noalias %a, ptr noalias %scales, ptr noalias %starts, i64 %groups,
    i64 %size, i64 %toomuch) {{
entry:
  %much = trunc i64 %toomuch to i32
  %less = sub i32 0, %much
  br label %group
group:
  %g = phi i64 [0, %entry], [%g1, %done]
  %first = mul i64 %g, %size
  br label %top
top:
  %i = phi i64 [0, %group], [%i1, %top]
  %most = phi <32 x i32> [zeroinitializer, %group], [%more, %top]
  %at = add i64 %first, %i
  %xp = getelementptr i32, ptr %x, i64 %at
  %v = load <32 x i32>, ptr %xp, align 4
  %abs = and <32 x i32> %v, splat (i32 2147483647)
  %more = call <32 x i32> @llvm.umax.v32i32(<32 x i32> %most, <32 x i32> %abs)
  %i1 = add i64 %i, 32
  %c = icmp ult i64 %i1, %size
  br i1 %c, label %top, label %scale
scale:
  %maxbits = call i32 @llvm.vector.reduce.umax.v32i32(<32 x i32> %more)
  %max = bitcast i32 %maxbits to float
  %s = fdiv float %max, 127.0
  %zero = fcmp olt float %s, 0x3810000000000000
  %inv0 = fdiv float 1.0, %s
  %inv = select i1 %zero, float 0.0, float %inv0
{inverse}
  %sp = getelementptr float, ptr %scales, i64 %g
  store float %s, ptr %sp
  br label %round
round:
  %j = phi i64 [0, %scale], [%j1, %round]
  %sum = phi <32 x i32> [zeroinitializer, %scale], [%sum1, %round]
  %jat = add i64 %first, %j
  %yp = getelementptr float, ptr %x, i64 %jat
  %w = load <32 x float>, ptr %yp, align 4
  %t = fmul <32 x float> %w, %iv
  %r = call <32 x float> @llvm.rint.v32f32(<32 x float> %t)
  %any = fptosi <32 x float> %r to <32 x i32>
  %q = freeze <32 x i32> %any
  %b = trunc <32 x i32> %q to <32 x i8>
  %ap = getelementptr i8, ptr %a, i64 %jat
  store <32 x i8> %b, ptr %ap, align 1
  %sum1 = add <32 x i32> %sum, %q
  %j1 = add i64 %j, 32
  %jc = icmp ult i64 %j1, %size
  br i1 %jc, label %round, label %done
done:
  %whole = call i32 @llvm.vector.reduce.add.v32i32(<32 x i32> %sum1)
  %start = mul i32 %whole, %less
  %tp = getelementptr i32, ptr %starts, i64 %g
  store i32 %start, ptr %tp
  %g1 = add i64 %g, 1
  %gc = icmp ult i64 %g1, %groups
  br i1 %gc, label %group, label %end
end:
  ret void
}}
"""
"""``quantize(x, a, scales, starts, groups, size, too_much)``: x: float[groups * size], each group by its own scale.

a: int8[groups * size] = rint(x / scale), scales: float[groups] = max|x| / 127, starts: int32[groups] = -too_much
times the sum of a. Below 2^-126, the least number with a finite inverse, a scale counts as 0. Without their signs
floats are in the order of their bits as integers, infinities and NaN at the end: a value that is not finite makes its
group's scale so, and with it the result, whatever its levels are then.
"""


def _quantizing() -> str:
    return _QUANTIZE.format(inverse=_broadcast("%iv", "%inv", "<32 x float>"))


_MULTIPLY = """
define void @multiply_{tokens}(ptr noalias %w, ptr noalias %ws, i64 %stride, ptr noalias %bias, ptr noalias %a,
    ptr noalias %as, ptr noalias %starts, ptr noalias %y, i64 %n0, i64 %n1, i64 %tiles, i64 %groups, i64 %size,
    i64 %ldy) {{
entry:
  %rowtiles = mul i64 %groups, %size
  %blockbytes = mul i64 %rowtiles, {tile_bytes}
  %columns = mul i64 %rowtiles, {tile_columns}
  %perrow0 = sub i64 %groups, 1
  %perrow1 = mul i64 %perrow0, %stride
  %blockscales = add i64 %perrow1, {rows}
  br label %block
block:
  %nb = phi i64 [%n0, %entry], [%nb1, %blockend]
  %wo = mul i64 %nb, %blockbytes
  %wblock = getelementptr i8, ptr %w, i64 %wo
  %so = mul i64 %nb, %blockscales
  %sblock = getelementptr half, ptr %ws, i64 %so
  %row0 = mul i64 %nb, {rows}
  br label %tile
tile:
  %t = phi i64 [0, %block], [%t1, %tileend]
  %m0 = mul i64 %t, {tokens}
  br label %group
group:
  %g = phi i64 [0, %tile], [%g1, %gend]
{zero_start}
{starts}
  %k0 = mul i64 %g, %size
  br label %k
k:
  %ki = phi i64 [0, %group], [%ki1, %k]
{sums}
  %kk = add i64 %k0, %ki
  %wk = mul i64 %kk, {tile_bytes}
  %wp0 = getelementptr i8, ptr %wblock, i64 %wk
{prefetch}
  %ak = mul i64 %kk, {tile_columns}
{body}
  %ki1 = add i64 %ki, {step}
  %kc = icmp ult i64 %ki1, %size
  br i1 %kc, label %k, label %gend
gend:
  %gs = mul i64 %g, %stride
  %wsp = getelementptr half, ptr %sblock, i64 %gs
  %wsh = load <{rows} x half>, ptr %wsp, align 2
  %wsv = fpext <{rows} x half> %wsh to {vf}
{ends}
  %g1 = add i64 %g, 1
  %gc = icmp ult i64 %g1, %groups
  br i1 %gc, label %group, label %tileend
tileend:
  %bp = getelementptr float, ptr %bias, i64 %row0
  %bv = load {vf}, ptr %bp, align 4
{stores}
  %t1 = add i64 %t, 1
  %tc = icmp ult i64 %t1, %tiles
  br i1 %tc, label %tile, label %blockend
blockend:
  %nb1 = add i64 %nb, 1
  %nc = icmp ult i64 %nb1, %n1
  br i1 %nc, label %block, label %done
done:
  ret void
}}
"""
"""``multiply_M(w, ws, stride, bias, a, as, starts, y, n0, n1, tiles, groups, size, ldy)`` for M = ``tokens``.

w: tiles; ws: half[N / R, (groups,) R], ``stride`` R or, with one scale a row, 0; bias: float[N]; a: int8[tiles * M, K];
as: float[tiles * M, groups]; starts: int32[tiles * M, groups]; y: float[tiles * M, ldy]. Blocks n0 to n1 of R
weight rows are done; ``size`` is a group's tiles.
"""


def _multiply(isa: Isa, bits: int, tokens: int) -> str:
    """:data:`_MULTIPLY` for one instruction set, kind of weights and number of tokens."""
    n, all_m = isa.rows, range(tokens)
    tile = _tile if bits == 4 else _byte_tile
    vi, vf = f"<{n} x i32>", f"<{n} x float>"
    return _MULTIPLY.format(
        tokens=tokens,
        rows=n,
        tile_bytes=4 * n,
        prefetch="\n".join(_prefetch(place) for place in range(0, 4 * n * _STEP, _LINE)),
        step=_STEP,
        tile_columns=tile_columns(bits),
        vf=vf,
        zero_start="\n".join(f"  %f{m} = phi {vf} [zeroinitializer, %tile], [%fn{m}, %gend]" for m in all_m),
        starts="\n".join(_group_start(m, vi) for m in all_m),
        sums="\n".join(f"  %acc{m} = phi {vi} [%sb{m}, %group], [%accn{m}, %k]" for m in all_m),
        body="\n".join(tile(isa, step, all_m) for step in range(_STEP)) + "\n" + _summed(isa, bits, all_m),
        ends="\n".join(_group_end(m, n) for m in all_m),
        stores="\n".join(_store(m, vf) for m in all_m),
    )


def _prefetch(place: int) -> str:
    return f"""  %pf{place} = getelementptr i8, ptr %wp0, i64 {_AHEAD + place}
  call void @llvm.prefetch.p0(ptr %pf{place}, i32 0, i32 3, i32 1)"""


def _broadcast(name: str, value: str, vector: str) -> str:
    """``value`` in every place of a ``vector`` called ``name``."""
    rows, _, kind = vector.strip("<>").split()
    return f"""  {name}i = insertelement {vector} poison, {kind} {value}, i32 0
  {name} = shufflevector {vector} {name}i, {vector} poison, <{rows} x i32> zeroinitializer"""


def _group_start(m: int, vi: str) -> str:
    return f"""  %gm{m} = add i64 %m0, {m}
  %go{m} = mul i64 %gm{m}, %groups
  %gi{m} = add i64 %go{m}, %g
  %stp{m} = getelementptr i32, ptr %starts, i64 %gi{m}
  %st{m} = load i32, ptr %stp{m}
{_broadcast(f"%sb{m}", f"%st{m}", vi)}
  %ao{m} = mul i64 %gm{m}, %columns
  %am{m} = getelementptr i8, ptr %a, i64 %ao{m}"""


def _tile(isa: Isa, step: int, all_m: Sequence[int]) -> str:
    """Load the tile's weights, split the nibbles, and meet the 8 activations of each token."""
    n, u = isa.rows, step
    vi = f"<{n} x i32>"
    lines = [
        f"  %wp_{u} = getelementptr i8, ptr %wp0, i64 {4 * n * u}",
        f"  %v_{u} = load {vi}, ptr %wp_{u}, align 1",
        f"  %lo_{u} = and {vi} %v_{u}, splat (i32 252645135)",
        f"  %sh_{u} = lshr {vi} %v_{u}, splat (i32 4)",
        f"  %hi_{u} = and {vi} %sh_{u}, splat (i32 252645135)",
    ]
    if isa.name == "avx2":
        lines += [f"  %{x}b_{u} = bitcast <8 x i32> %{x}_{u} to <32 x i8>" for x in ("lo", "hi")]
    for m in all_m:
        for half, offset in (("lo", 8 * u), ("hi", 8 * u + 4)):
            lines += _activations(f"{half}{m}_{u}", m, offset, n)
        lines += _products(isa, m, u)
    return "\n".join(lines)


def _activations(tag: str, m: int, offset: int, n: int) -> list[str]:
    """Load 4 activations of token ``m`` and give them to all rows, as ``%ab<tag>``."""
    return [
        f"  %ax{tag} = add i64 %ak, {offset}",
        f"  %ap{tag} = getelementptr i8, ptr %am{m}, i64 %ax{tag}",
        f"  %av{tag} = load i32, ptr %ap{tag}, align 1",
        _broadcast(f"%ab{tag}", f"%av{tag}", f"<{n} x i32>"),
    ]


def _byte_tile(isa: Isa, u: int, all_m: Sequence[int]) -> str:
    """Load a tile of INT8 and meet the 4 activations of each token; sums run in ``%s<token>_<tile>``."""
    n, vi = isa.rows, f"<{isa.rows} x i32>"
    lines = [f"  %wp_{u} = getelementptr i8, ptr %wp0, i64 {4 * n * u}", f"  %v_{u} = load {vi}, ptr %wp_{u}, align 1"]
    if isa.name == "avx2":
        lines += [
            f"  %vb_{u} = bitcast <8 x i32> %v_{u} to <32 x i8>",
            f"  %vs_{u} = xor <32 x i8> %vb_{u}, splat (i8 -128)",
            f"  %va_{u} = call <32 x i8> @llvm.abs.v32i8(<32 x i8> %vs_{u}, i1 false)",
        ]
    for m in all_m:
        tag, before = f"{m}_{u}", f"%acc{m}" if u == 0 else f"%s{m}_{u - 1}"
        lines += _activations(tag, m, 4 * u, n)
        if isa.name != "avx2":
            call = f"call {vi} @llvm.x86.avx512.vpdpbusd.{32 * n}"
            lines.append(f"  %s{tag} = {call}({vi} {before}, {vi} %v_{u}, {vi} %ab{tag})")
            continue
        lines += [
            f"  %a8{tag} = bitcast <8 x i32> %ab{tag} to <32 x i8>",
            f"  %as{tag} = call <32 x i8> @llvm.x86.avx2.psign.b(<32 x i8> %a8{tag}, <32 x i8> %vs_{u})",
            f"  %p{tag} = call <16 x i16> @llvm.x86.avx2.pmadd.ub.sw(<32 x i8> %va_{u}, <32 x i8> %as{tag})",
            f"  %w{tag} = call <8 x i32> @llvm.x86.avx2.pmadd.wd(<16 x i16> %p{tag}, <16 x i16> splat (i16 1))",
            f"  %s{tag} = add <8 x i32> {before}, %w{tag}",
        ]
    return "\n".join(lines)


def _products(isa: Isa, m: int, u: int) -> list[str]:
    if isa.name != "avx2":
        n, vi = isa.rows, f"<{isa.rows} x i32>"
        call = f"call {vi} @llvm.x86.avx512.vpdpbusd.{32 * n}"
        # Two sums, so that one instruction need not wait for the other.
        lo_from = f"%acc{m}" if u == 0 else f"%lo{m}s_{u - 1}"
        hi_from = "zeroinitializer" if u == 0 else f"%hi{m}s_{u - 1}"
        return [
            f"  %lo{m}s_{u} = {call}({vi} {lo_from}, {vi} %lo_{u}, {vi} %ablo{m}_{u})",
            f"  %hi{m}s_{u} = {call}({vi} {hi_from}, {vi} %hi_{u}, {vi} %abhi{m}_{u})",
        ]
    lines = []
    for half in ("lo", "hi"):
        lines += [
            f"  %a8{half}{m}_{u} = bitcast <8 x i32> %ab{half}{m}_{u} to <32 x i8>",
            f"  %p{half}{m}_{u} = call <16 x i16> @llvm.x86.avx2.pmadd.ub.sw("
            f"<32 x i8> %{half}b_{u}, <32 x i8> %a8{half}{m}_{u})",
        ]
    lines.append(f"  %q{m}_{u} = add <16 x i16> %plo{m}_{u}, %phi{m}_{u}")
    if u:
        before = f"%q{m}_0" if u == 1 else f"%r{m}_{u - 1}"
        lines.append(f"  %r{m}_{u} = add <16 x i16> {before}, %q{m}_{u}")
    return lines


def _summed(isa: Isa, bits: int, all_m: Sequence[int]) -> str:
    """The sums after the pass, as ``%accn<token>``."""
    last, lines = _STEP - 1, []
    for m in all_m:
        if bits == 8:
            lines.append(f"  %accn{m} = add <{isa.rows} x i32> %s{m}_{last}, zeroinitializer")
        elif isa.name == "avx2":
            lines += [
                f"  %w{m} = call <8 x i32> @llvm.x86.avx2.pmadd.wd(<16 x i16> %r{m}_{last}, <16 x i16> splat (i16 1))",
                f"  %accn{m} = add <8 x i32> %acc{m}, %w{m}",
            ]
        else:
            lines.append(f"  %accn{m} = add <{isa.rows} x i32> %lo{m}s_{last}, %hi{m}s_{last}")
    return "\n".join(lines)


def _group_end(m: int, n: int) -> str:
    vf = f"<{n} x float>"
    return f"""  %tf{m} = sitofp <{n} x i32> %accn{m} to {vf}
  %asp{m} = getelementptr float, ptr %as, i64 %gi{m}
  %asv{m} = load float, ptr %asp{m}
{_broadcast(f"%asb{m}", f"%asv{m}", vf)}
  %sc{m} = fmul {vf} %wsv, %asb{m}
  %fn{m} = call {vf} @llvm.fma.v{n}f32({vf} %tf{m}, {vf} %sc{m}, {vf} %f{m})"""


def _store(m: int, vf: str) -> str:
    return f"""  %ym{m} = add i64 %m0, {m}
  %yo{m} = mul i64 %ym{m}, %ldy
  %yi{m} = add i64 %yo{m}, %row0
  %yp{m} = getelementptr float, ptr %y, i64 %yi{m}
  %yv{m} = fadd {vf} %fn{m}, %bv
  store {vf} %yv{m}, ptr %yp{m}, align 4"""
