"""LLVM code of the CPU kernels: activations to INT8, and INT4 or INT8 weights times them (W4A8, W8A8).

The weights lie in tiles of 16 rows and 8 columns (INT8: 4), 64 bytes each, in the order in which they are read::

    INT4  uint8[N / 16, K / 8, 16, 4]     byte (n, j) of a tile = columns j (low nibble) and j + 4 (high), as q + 8
    INT8  uint8[N / 16, K / 4, 16, 4]     byte (n, j) of a tile = column j, as q + 128

so one load brings 16 rows, and the 4 bytes of a row meet 4 activations broadcast to all rows: the shape of the
instruction ``vpdpbusd`` (unsigned times signed bytes, four products summed into 32 bits). AVX2 does the same with two
instructions, whose 16-bit sums hold 4 tiles of INT4 (8 products of at most 15 x 127) before they must be widened. The
8 or 128 that the weights carry too much is taken off at the start of a sum: it is that times the sum of the group's
activations, negated. Two products of whole bytes would overflow AVX2's 16 bits, so its INT8 goes by signed levels, the
sign of each moved to its activation, and nothing is taken off.

A group is at least 32 columns: one or two passes of the innermost loop. Offsets are 64-bit; memory is read in bounds
for any N that is a multiple of 16 and K of 32.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

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
    """The text of the module for weights of ``bits``: ``quantize``, one ``multiply_M`` for each M of ``isa.tokens``."""
    return "\n".join([_declarations(isa), _QUANTIZE, *(_multiply(isa, bits, tokens) for tokens in isa.tokens)])


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
declare <32 x float> @llvm.fabs.v32f32(<32 x float>)
declare <32 x float> @llvm.maximum.v32f32(<32 x float>, <32 x float>)
declare float @llvm.vector.reduce.fmaximum.v32f32(<32 x float>)
declare <32 x float> @llvm.rint.v32f32(<32 x float>)
declare <32 x i32> @llvm.fptosi.sat.v32i32.v32f32(<32 x float>)
declare i32 @llvm.vector.reduce.add.v32i32(<32 x i32>)
"""


_QUANTIZE = """
define void @quantize(ptr noalias %x, ptr noalias %a, ptr noalias %scales, ptr noalias %starts, i64 %groups,
    i64 %size, i64 %toomuch) {
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
  %most = phi <32 x float> [zeroinitializer, %group], [%more, %top]
  %at = add i64 %first, %i
  %xp = getelementptr float, ptr %x, i64 %at
  %v = load <32 x float>, ptr %xp, align 4
  %abs = call <32 x float> @llvm.fabs.v32f32(<32 x float> %v)
  %more = call <32 x float> @llvm.maximum.v32f32(<32 x float> %most, <32 x float> %abs)
  %i1 = add i64 %i, 32
  %c = icmp ult i64 %i1, %size
  br i1 %c, label %top, label %scale
scale:
  %max = call float @llvm.vector.reduce.fmaximum.v32f32(<32 x float> %more)
  %s = fdiv float %max, 127.0
  %zero = fcmp oeq float %s, 0.0
  %inv0 = fdiv float 1.0, %s
  %inv = select i1 %zero, float 0.0, float %inv0
  %iv0 = insertelement <32 x float> poison, float %inv, i32 0
  %iv = shufflevector <32 x float> %iv0, <32 x float> poison, <32 x i32> zeroinitializer
  %sp = getelementptr float, ptr %scales, i64 %g
  store float %s, ptr %sp
  br label %round
round:
  %j = phi i64 [0, %scale], [%j1, %round]
  %sum = phi i32 [0, %scale], [%sum1, %round]
  %jat = add i64 %first, %j
  %yp = getelementptr float, ptr %x, i64 %jat
  %w = load <32 x float>, ptr %yp, align 4
  %t = fmul <32 x float> %w, %iv
  %r = call <32 x float> @llvm.rint.v32f32(<32 x float> %t)
  %q = call <32 x i32> @llvm.fptosi.sat.v32i32.v32f32(<32 x float> %r)
  %b = trunc <32 x i32> %q to <32 x i8>
  %ap = getelementptr i8, ptr %a, i64 %jat
  store <32 x i8> %b, ptr %ap, align 1
  %part = call i32 @llvm.vector.reduce.add.v32i32(<32 x i32> %q)
  %sum1 = add i32 %sum, %part
  %j1 = add i64 %j, 32
  %jc = icmp ult i64 %j1, %size
  br i1 %jc, label %round, label %done
done:
  %start = mul i32 %sum1, %less
  %tp = getelementptr i32, ptr %starts, i64 %g
  store i32 %start, ptr %tp
  %g1 = add i64 %g, 1
  %gc = icmp ult i64 %g1, %groups
  br i1 %gc, label %group, label %end
end:
  ret void
}
"""
"""``quantize(x, a, scales, starts, groups, size, too_much)``: x: float[groups * size], each group by its own scale.

a: int8[groups * size] = rint(x / scale), scales: float[groups] = max|x| / 127, starts: int32[groups] = -too_much
times the sum of a. A value that is not finite makes its group's scale so, and with it the result.
"""

_MULTIPLY = """
define void @multiply_{tokens}(ptr noalias %w, ptr noalias %ws, i64 %stride, ptr noalias %a, ptr noalias %as,
    ptr noalias %starts, ptr noalias %y, i64 %n0, i64 %n1, i64 %tiles, i64 %groups, i64 %size, i64 %ldy) {{
entry:
  %rowtiles = mul i64 %groups, %size
  %blockbytes = mul i64 %rowtiles, 64
  %columns = mul i64 %rowtiles, {tile_columns}
  %perrow0 = sub i64 %groups, 1
  %perrow1 = mul i64 %perrow0, %stride
  %blockscales = add i64 %perrow1, 16
  br label %block
block:
  %nb = phi i64 [%n0, %entry], [%nb1, %blockend]
  %wo = mul i64 %nb, %blockbytes
  %wblock = getelementptr i8, ptr %w, i64 %wo
  %so = mul i64 %nb, %blockscales
  %sblock = getelementptr half, ptr %ws, i64 %so
  %row0 = mul i64 %nb, 16
  br label %tile
tile:
  %t = phi i64 [0, %block], [%t1, %tileend]
  %m0 = mul i64 %t, {tokens}
  br label %part
part:
  %h = phi i64 [0, %tile], [%h1, %partend]
  %ho = mul i64 %h, {part_bytes}
  %wpart = getelementptr i8, ptr %wblock, i64 %ho
  %hrow = mul i64 %h, {rows}
  %spart = getelementptr half, ptr %sblock, i64 %hrow
  br label %group
group:
  %g = phi i64 [0, %part], [%g1, %gend]
{zero_start}
{starts}
  %k0 = mul i64 %g, %size
  br label %k
k:
  %ki = phi i64 [0, %group], [%ki1, %k]
{sums}
  %kk = add i64 %k0, %ki
  %wk = mul i64 %kk, 64
  %wp0 = getelementptr i8, ptr %wpart, i64 %wk
  %pf = getelementptr i8, ptr %wp0, i64 2048
  call void @llvm.prefetch.p0(ptr %pf, i32 0, i32 3, i32 1)
  %pg = getelementptr i8, ptr %wp0, i64 2112
  call void @llvm.prefetch.p0(ptr %pg, i32 0, i32 3, i32 1)
  %ph = getelementptr i8, ptr %wp0, i64 2176
  call void @llvm.prefetch.p0(ptr %ph, i32 0, i32 3, i32 1)
  %pi = getelementptr i8, ptr %wp0, i64 2240
  call void @llvm.prefetch.p0(ptr %pi, i32 0, i32 3, i32 1)
  %ak = mul i64 %kk, {tile_columns}
{body}
  %ki1 = add i64 %ki, {step}
  %kc = icmp ult i64 %ki1, %size
  br i1 %kc, label %k, label %gend
gend:
  %gs = mul i64 %g, %stride
  %wsp = getelementptr half, ptr %spart, i64 %gs
  %wsh = load <{rows} x half>, ptr %wsp, align 2
  %wsv = fpext <{rows} x half> %wsh to {vf}
{ends}
  %g1 = add i64 %g, 1
  %gc = icmp ult i64 %g1, %groups
  br i1 %gc, label %group, label %partend
partend:
  %yrow = add i64 %row0, %hrow
{stores}
  %h1 = add i64 %h, 1
  %hc = icmp ult i64 %h1, {parts}
  br i1 %hc, label %part, label %tileend
tileend:
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
"""``multiply_M(w, ws, stride, a, as, starts, y, n0, n1, tiles, groups, size, ldy)`` for M = ``tokens``.

w: tiles; ws: half[N / 16, (groups,) 16], ``stride`` 16 or, with one scale a row, 0; a: int8[tiles * M, K];
as: float[tiles * M, groups]; starts: int32[tiles * M, groups]; y: float[tiles * M, ldy]. Blocks n0 to n1 of 16
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
        parts=16 // n,
        part_bytes=4 * n,
        step=_STEP,
        tile_columns=tile_columns(bits),
        vf=vf,
        zero_start="\n".join(f"  %f{m} = phi {vf} [zeroinitializer, %part], [%fn{m}, %gend]" for m in all_m),
        starts="\n".join(_group_start(m, vi) for m in all_m),
        sums="\n".join(f"  %acc{m} = phi {vi} [%sb{m}, %group], [%accn{m}, %k]" for m in all_m),
        body="\n".join(tile(isa, step, all_m) for step in range(_STEP)) + "\n" + _summed(isa, bits, all_m),
        ends="\n".join(_group_end(m, n) for m in all_m),
        stores="\n".join(_store(m, vf) for m in all_m),
    )


def _group_start(m: int, vi: str) -> str:
    n = vi[1:].split()[0]
    return f"""  %gm{m} = add i64 %m0, {m}
  %go{m} = mul i64 %gm{m}, %groups
  %gi{m} = add i64 %go{m}, %g
  %stp{m} = getelementptr i32, ptr %starts, i64 %gi{m}
  %st{m} = load i32, ptr %stp{m}
  %si{m} = insertelement {vi} poison, i32 %st{m}, i32 0
  %sb{m} = shufflevector {vi} %si{m}, {vi} poison, <{n} x i32> zeroinitializer
  %ao{m} = mul i64 %gm{m}, %columns
  %am{m} = getelementptr i8, ptr %a, i64 %ao{m}"""


def _tile(isa: Isa, step: int, all_m: Sequence[int]) -> str:
    """Load the tile's weights, split the nibbles, and meet the 8 activations of each token."""
    n, u = isa.rows, step
    vi = f"<{n} x i32>"
    lines = [
        f"  %wp_{u} = getelementptr i8, ptr %wp0, i64 {64 * u}",
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
    vi = f"<{n} x i32>"
    return [
        f"  %ax{tag} = add i64 %ak, {offset}",
        f"  %ap{tag} = getelementptr i8, ptr %am{m}, i64 %ax{tag}",
        f"  %av{tag} = load i32, ptr %ap{tag}, align 1",
        f"  %ai{tag} = insertelement {vi} poison, i32 %av{tag}, i32 0",
        f"  %ab{tag} = shufflevector {vi} %ai{tag}, {vi} poison, <{n} x i32> zeroinitializer",
    ]


def _byte_tile(isa: Isa, u: int, all_m: Sequence[int]) -> str:
    """Load a tile of INT8 and meet the 4 activations of each token; sums run in ``%s<token>_<tile>``."""
    n, vi = isa.rows, f"<{isa.rows} x i32>"
    lines = [f"  %wp_{u} = getelementptr i8, ptr %wp0, i64 {64 * u}", f"  %v_{u} = load {vi}, ptr %wp_{u}, align 1"]
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
  %asi{m} = insertelement {vf} poison, float %asv{m}, i32 0
  %asb{m} = shufflevector {vf} %asi{m}, {vf} poison, <{n} x i32> zeroinitializer
  %sc{m} = fmul {vf} %wsv, %asb{m}
  %fn{m} = call {vf} @llvm.fma.v{n}f32({vf} %tf{m}, {vf} %sc{m}, {vf} %f{m})"""


def _store(m: int, vf: str) -> str:
    return f"""  %ym{m} = add i64 %m0, {m}
  %yo{m} = mul i64 %ym{m}, %ldy
  %yi{m} = add i64 %yo{m}, %yrow
  %yp{m} = getelementptr float, ptr %y, i64 %yi{m}
  store {vf} %fn{m}, ptr %yp{m}, align 4"""
