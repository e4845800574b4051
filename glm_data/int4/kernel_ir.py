"""LLVM code of the CPU kernels: weights put in their order, activations to INT8; ``product_ir.py`` multiplies them.

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
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

_HIGH_BITS = -0x7F7F7F80
"""The highest bit of each byte of a word: flipped, it adds 128 to a signed one."""


@dataclass(frozen=True, eq=False)
class Isa:
    """An instruction set."""

    name: str
    features: tuple[str, ...]
    """The CPU features that it needs."""
    rows: int
    """Rows that a register holds."""
    streams: Mapping[int, int]
    """For each number of tokens that kernels take at once, least first: the streams of weights that they go through."""

    def at_once(self, tokens: int) -> int:
        """Of the numbers that kernels take, the least that is enough, or the largest."""
        return next((m for m in self.streams if m >= tokens), max(self.streams))


ISAS = (
    Isa("avx512-vnni", ("avx512f", "avx512vl", "avx512vnni", "f16c"), 16, {1: 1, 2: 1, 4: 1, 8: 1}),
    Isa("avx-vnni", ("avxvnni", "fma", "f16c"), 8, {1: 1, 2: 1, 4: 1}),
    Isa("avx2", ("avx2", "fma", "f16c"), 8, {1: 4, 2: 2, 4: 2}),
)
"""Known instruction sets, the fastest first."""


def preparing(isa: Isa, bits: int) -> str:
    """What products of weights of ``bits`` need: declarations, ``tile`` and ``quantize``."""
    return "\n".join([_declarations(isa), _tiling(isa, bits), _quantizing()])


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
declare i64 @llvm.umin.i64(i64, i64)
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
    return _QUANTIZE.format(inverse=broadcast("%iv", "%inv", "<32 x float>"))


def broadcast(name: str, value: str, vector: str) -> str:
    """``value`` in every place of a ``vector`` called ``name``."""
    rows, _, kind = vector.strip("<>").split()
    return f"""  {name}i = insertelement {vector} poison, {kind} {value}, i32 0
  {name} = shufflevector {vector} {name}i, {vector} poison, <{rows} x i32> zeroinitializer"""
