"""LLVM code of the CPU kernels' products, on top of what ``kernel_ir.py`` prepares; the order of the weights is there.

A product goes through several blocks of rows at a time where that pays: these streams lie far apart in memory, so that
the CPU's own prefetcher follows each of them, and share what is done for the activations. One stream alone keeps too
few loads under way to use the memory's bandwidth. A group is at least 32 columns: one or two passes of the innermost
loop. Offsets are 64-bit; memory is read in bounds for any N that is a multiple of R and K of 32.
"""

from __future__ import annotations

from itertools import product

from glm_data.int4.kernel_ir import Isa, broadcast, preparing, tile_columns

_LINE, _AHEAD = 64, 2048
"""Bytes of a cache line, and how far ahead of a load, in all streams together, its line is asked for."""
_STEP = 4
"""Tiles of one pass of the innermost loop."""
_LOW = 0x0F0F0F0F
"""The low nibbles of a word."""


def module(isa: Isa, bits: int) -> str:
    """The module for weights of ``bits``: ``tile``, ``quantize``, and ``multiply_M`` and ``whole_M`` for each M of
    ``isa.streams``."""
    products = [_Product(isa, bits, tokens).code() + _whole(tokens) for tokens in isa.streams]
    return "\n".join([preparing(isa, bits), *products])


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
  %all = sub i64 %n1, %n0
  %rounded = add i64 %all, {streams}
  %rounded1 = sub i64 %rounded, 1
  %far = udiv i64 %rounded1, {streams}
  %latest = sub i64 %n1, %far
  br label %block
block:
  %i = phi i64 [0, %entry], [%i1, %blockend]
{blocks}
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
  %ak = mul i64 %kk, {tile_columns}
{body}
  %ki1 = add i64 %ki, {step}
  %kc = icmp ult i64 %ki1, %size
  br i1 %kc, label %k, label %gend
gend:
  %gs = mul i64 %g, %stride
{ends}
  %g1 = add i64 %g, 1
  %gc = icmp ult i64 %g1, %groups
  br i1 %gc, label %group, label %tileend
tileend:
{stores}
  %t1 = add i64 %t, 1
  %tc = icmp ult i64 %t1, %tiles
  br i1 %tc, label %tile, label %blockend
blockend:
  %i1 = add i64 %i, 1
  %ic = icmp ult i64 %i1, %far
  br i1 %ic, label %block, label %done
done:
  ret void
}}
"""
"""``multiply_M(w, ws, stride, bias, a, as, starts, y, n0, n1, tiles, groups, size, ldy)`` for M = ``tokens``.

w: tiles; ws: half[N / R, (groups,) R], ``stride`` R or, with one scale a row, 0; bias: float[N]; a: int8[tiles * M, K];
as: float[tiles * M, groups]; starts: int32[tiles * M, groups]; y: float[tiles * M, ldy]. Blocks n0 to n1 of R
weight rows are done; ``size`` is a group's tiles.

The blocks are cut into as many streams as are gone through at a time. They are of one length: where the blocks do not
divide, the last streams begin earlier, and some blocks are done twice, to the same end.
"""

_PLAN = ("ptr w", "ptr ws", "i64 stride", "ptr bias", "i64 blocks", "i64 groups", "i64 size", "i64 ldy", "i64 columns",
         "i64 much")  # fmt: skip
"""What ``whole_M`` is given of a matrix: as ``multiply_M`` takes it, and ``quantize`` its ``size`` and ``too_much``."""

_WHOLE = """
define void @whole_{tokens}(ptr noalias %plan, ptr noalias %x, ptr noalias %y) {{
{plan}
  %allgroups = mul i64 %groups, {tokens}
  %bytes = mul i64 %allgroups, %columns
  %a = alloca i8, i64 %bytes, align 64
  %as = alloca float, i64 %allgroups
  %starts = alloca i32, i64 %allgroups
  call void @quantize(ptr %x, ptr %a, ptr %as, ptr %starts, i64 %allgroups, i64 %columns, i64 %much)
  call void @multiply_{tokens}(ptr %w, ptr %ws, i64 %stride, ptr %bias, ptr %a, ptr %as, ptr %starts, ptr %y, i64 0,
      i64 %blocks, i64 1, i64 %groups, i64 %size, i64 %ldy)
  ret void
}}
"""
"""``whole_M(plan, x, y)``: y: float[M, ldy] = the product of x: float[M, K], on one thread; plan: :data:`_PLAN`.

It is one call of few arguments because the caller's caches are cold: the matrix before has gone through them.
"""


def _whole(tokens: int) -> str:
    """:data:`_WHOLE` for so many tokens."""
    lines = []
    for place, field in enumerate(_PLAN):
        kind, name = field.split()
        lines.append(
            f"  %at{place} = getelementptr i64, ptr %plan, i64 {place}\n  %{name} = load {kind}, ptr %at{place}"
        )
    return _WHOLE.format(tokens=tokens, plan="\n".join(lines))


class _Product:
    """:data:`_MULTIPLY` for one instruction set, kind of weights and number of tokens.

    Names in the code: ``m`` is a token, ``b`` a stream's block, ``u`` a tile of the pass; what belongs to a block and a
    token is called ``<b>_<m>``, to a block and a tile ``<b>_t<u>``.
    """

    def __init__(self, isa: Isa, bits: int, tokens: int) -> None:
        self.isa, self.bits, self.tokens, self.n = isa, bits, tokens, isa.rows
        self.all_m, self.all_b = range(tokens), range(isa.streams[tokens])
        self.vi, self.vf = f"<{isa.rows} x i32>", f"<{isa.rows} x float>"

    def code(self) -> str:
        vi, vf, n = self.vi, self.vf, self.n
        pairs = [f"{b}_{m}" for b, m in product(self.all_b, self.all_m)]
        loop = [line for b in self.all_b for line in self._weights(b)]
        loop += [line for u in range(_STEP) for line in self._tile(u)]
        loop += [line for pair in pairs for line in self._summed(pair)]
        return _MULTIPLY.format(
            tokens=self.tokens,
            rows=n,
            streams=len(self.all_b),
            tile_bytes=4 * n,
            step=_STEP,
            tile_columns=tile_columns(self.bits),
            blocks="\n".join(line for b in self.all_b for line in self._block(b)),
            zero_start="\n".join(f"  %f{p} = phi {vf} [zeroinitializer, %tile], [%fn{p}, %gend]" for p in pairs),
            starts="\n".join(_group_start(m, vi) for m in self.all_m),
            sums="\n".join(f"  %acc{p} = phi {vi} [%sb{p[2:]}, %group], [%accn{p}, %k]" for p in pairs),
            body="\n".join(loop),
            ends="\n".join(self._group_end()),
            stores="\n".join(self._stores()),
        )

    def _block(self, b: int) -> list[str]:
        """Where the block that stream ``b`` is at has its weights, scales and rows."""
        return [
            f"  %from{b} = mul i64 %far, {b}",
            f"  %even{b} = add i64 %n0, %from{b}",
            f"  %first{b} = call i64 @llvm.umin.i64(i64 %even{b}, i64 %latest)",
            f"  %nb{b} = add i64 %first{b}, %i",
            f"  %wo{b} = mul i64 %nb{b}, %blockbytes",
            f"  %wblock{b} = getelementptr i8, ptr %w, i64 %wo{b}",
            f"  %so{b} = mul i64 %nb{b}, %blockscales",
            f"  %sblock{b} = getelementptr half, ptr %ws, i64 %so{b}",
            f"  %row{b} = mul i64 %nb{b}, {self.n}",
        ]

    def _weights(self, b: int) -> list[str]:
        """Where the tiles of a pass lie; those of a later one are asked for."""
        lines = [f"  %wp{b} = getelementptr i8, ptr %wblock{b}, i64 %wk"]
        for place in range(_AHEAD // len(self.all_b), _AHEAD // len(self.all_b) + 4 * self.n * _STEP, _LINE):
            lines += [
                f"  %pf{b}_{place} = getelementptr i8, ptr %wp{b}, i64 {place}",
                f"  call void @llvm.prefetch.p0(ptr %pf{b}_{place}, i32 0, i32 3, i32 1)",
            ]
        return lines

    def _tile(self, u: int) -> list[str]:
        """Give the activations of tile ``u`` to all rows; load the weights of each block and meet them."""
        parts, width = (("lo", "hi"), 8) if self.bits == 4 else (("by",), 4)
        lines = []
        for m, (place, part) in product(self.all_m, enumerate(parts)):
            lines += self._activations(f"{part}{m}_t{u}", m, width * u + 4 * place)
        for b in self.all_b:
            lines += [
                f"  %wp{b}_t{u} = getelementptr i8, ptr %wp{b}, i64 {4 * self.n * u}",
                f"  %v{b}_t{u} = load {self.vi}, ptr %wp{b}_t{u}, align 1",
                *(self._nibbles(f"{b}_t{u}") if self.bits == 4 else self._signs(f"{b}_t{u}")),
            ]
            for m in self.all_m:
                lines += self._products(b, m, u) if self.bits == 4 else self._byte_products(b, m, u)
        return lines

    def _activations(self, tag: str, m: int, offset: int) -> list[str]:
        """Load 4 activations of token ``m`` and give them to all rows, as ``%ab<tag>`` and in bytes ``%a8<tag>``."""
        return [
            f"  %ax{tag} = add i64 %ak, {offset}",
            f"  %ap{tag} = getelementptr i8, ptr %am{m}, i64 %ax{tag}",
            f"  %av{tag} = load i32, ptr %ap{tag}, align 1",
            broadcast(f"%ab{tag}", f"%av{tag}", self.vi),
            f"  %a8{tag} = bitcast {self.vi} %ab{tag} to <{4 * self.n} x i8>",
        ]

    def _nibbles(self, v: str) -> list[str]:
        """The nibbles of the tile ``v``, as words and in bytes."""
        vi, bytes_ = self.vi, f"<{4 * self.n} x i8>"
        return [
            f"  %lo{v} = and {vi} %v{v}, splat (i32 {_LOW})",
            f"  %sh{v} = lshr {vi} %v{v}, splat (i32 4)",
            f"  %hi{v} = and {vi} %sh{v}, splat (i32 {_LOW})",
            f"  %lo8{v} = bitcast {vi} %lo{v} to {bytes_}",
            f"  %hi8{v} = bitcast {vi} %hi{v} to {bytes_}",
        ]

    def _signs(self, v: str) -> list[str]:
        """Signed levels and their sizes, which AVX2 wants of INT8."""
        if self.isa.name != "avx2":
            return []
        return [
            f"  %vb{v} = bitcast <8 x i32> %v{v} to <32 x i8>",
            f"  %vs{v} = xor <32 x i8> %vb{v}, splat (i8 -128)",
            f"  %va{v} = call <32 x i8> @llvm.abs.v32i8(<32 x i8> %vs{v}, i1 false)",
        ]

    def _products(self, b: int, m: int, u: int) -> list[str]:
        """Of INT4: sums of 32 bits run in two, ``%lo<b>_<m>_s<u>`` and ``%hi``, so that one instruction need not wait
        for the other; AVX2's of 16 bits in ``%r<b>_<m>_s<u>``."""
        p, a, v = f"{b}_{m}", f"{m}_t{u}", f"{b}_t{u}"
        if self.isa.name != "avx2":
            lo_from = f"%lo{p}_s{u - 1}" if u else f"%acc{p}"
            hi_from = f"%hi{p}_s{u - 1}" if u else "zeroinitializer"
            return [
                f"  %lo{p}_s{u} = {self._dot(lo_from, f'%lo{v}', f'%ablo{a}')}",
                f"  %hi{p}_s{u} = {self._dot(hi_from, f'%hi{v}', f'%abhi{a}')}",
            ]
        before = f"%r{p}_s{u - 1}" if u else "zeroinitializer"
        madd = "call <16 x i16> @llvm.x86.avx2.pmadd.ub.sw"
        return [
            f"  %plo{p}_t{u} = {madd}(<32 x i8> %lo8{v}, <32 x i8> %a8lo{a})",
            f"  %phi{p}_t{u} = {madd}(<32 x i8> %hi8{v}, <32 x i8> %a8hi{a})",
            f"  %q{p}_t{u} = add <16 x i16> %plo{p}_t{u}, %phi{p}_t{u}",
            f"  %r{p}_s{u} = add <16 x i16> {before}, %q{p}_t{u}",
        ]

    def _byte_products(self, b: int, m: int, u: int) -> list[str]:
        """Of INT8; sums run in ``%s<b>_<m>_s<u>``."""
        p, a, v = f"{b}_{m}", f"by{m}_t{u}", f"{b}_t{u}"
        before = f"%s{p}_s{u - 1}" if u else f"%acc{p}"
        if self.isa.name != "avx2":
            return [f"  %s{p}_s{u} = {self._dot(before, f'%v{v}', f'%ab{a}')}"]
        return [
            f"  %as{p}_t{u} = call <32 x i8> @llvm.x86.avx2.psign.b(<32 x i8> %a8{a}, <32 x i8> %vs{v})",
            f"  %p{p}_t{u} = call <16 x i16> @llvm.x86.avx2.pmadd.ub.sw(<32 x i8> %va{v}, <32 x i8> %as{p}_t{u})",
            f"  %w{p}_t{u} = {_widened(f'%p{p}_t{u}')}",
            f"  %s{p}_s{u} = add <8 x i32> {before}, %w{p}_t{u}",
        ]

    def _dot(self, before: str, weights: str, activations: str) -> str:
        """The instruction that VNNI is named for."""
        vi = self.vi
        return f"call {vi} @llvm.x86.avx512.vpdpbusd.{32 * self.n}({vi} {before}, {vi} {weights}, {vi} {activations})"

    def _summed(self, p: str) -> list[str]:
        """The sum of a block and a token after the pass, as ``%accn<b>_<m>``."""
        last = _STEP - 1
        if self.bits == 8:
            return [f"  %accn{p} = add {self.vi} %s{p}_s{last}, zeroinitializer"]
        if self.isa.name == "avx2":
            wide = f"  %w{p} = {_widened(f'%r{p}_s{last}')}"
            return [wide, f"  %accn{p} = add <8 x i32> %acc{p}, %w{p}"]
        return [f"  %accn{p} = add {self.vi} %lo{p}_s{last}, %hi{p}_s{last}"]

    def _group_end(self) -> list[str]:
        """Sums times the scales of weights and activations, on top of the groups before."""
        n, vi, vf = self.n, self.vi, self.vf
        lines = []
        for m in self.all_m:
            lines += [
                f"  %asp{m} = getelementptr float, ptr %as, i64 %gi{m}",
                f"  %asv{m} = load float, ptr %asp{m}",
                broadcast(f"%asb{m}", f"%asv{m}", vf),
            ]
        for b in self.all_b:
            lines += [
                f"  %wsp{b} = getelementptr half, ptr %sblock{b}, i64 %gs",
                f"  %wsh{b} = load <{n} x half>, ptr %wsp{b}, align 2",
                f"  %wsv{b} = fpext <{n} x half> %wsh{b} to {vf}",
            ]
        for b, m in product(self.all_b, self.all_m):
            p = f"{b}_{m}"
            lines += [
                f"  %tf{p} = sitofp {vi} %accn{p} to {vf}",
                f"  %sc{p} = fmul {vf} %wsv{b}, %asb{m}",
                f"  %fn{p} = call {vf} @llvm.fma.v{n}f32({vf} %tf{p}, {vf} %sc{p}, {vf} %f{p})",
            ]
        return lines

    def _stores(self) -> list[str]:
        """The bias added, and the rows of each token put in their places."""
        vf, lines = self.vf, []
        for b in self.all_b:
            lines += [
                f"  %bp{b} = getelementptr float, ptr %bias, i64 %row{b}",
                f"  %bv{b} = load {vf}, ptr %bp{b}, align 4",
            ]
        for b, m in product(self.all_b, self.all_m):
            p = f"{b}_{m}"
            lines += [
                f"  %yo{p} = mul i64 %gm{m}, %ldy",
                f"  %yi{p} = add i64 %yo{p}, %row{b}",
                f"  %yp{p} = getelementptr float, ptr %y, i64 %yi{p}",
                f"  %yv{p} = fadd {vf} %fn{p}, %bv{b}",
                f"  store {vf} %yv{p}, ptr %yp{p}, align 4",
            ]
        return lines


def _group_start(m: int, vi: str) -> str:
    return f"""  %gm{m} = add i64 %m0, {m}
  %go{m} = mul i64 %gm{m}, %groups
  %gi{m} = add i64 %go{m}, %g
  %stp{m} = getelementptr i32, ptr %starts, i64 %gi{m}
  %st{m} = load i32, ptr %stp{m}
{broadcast(f"%sb{m}", f"%st{m}", vi)}
  %ao{m} = mul i64 %gm{m}, %columns
  %am{m} = getelementptr i8, ptr %a, i64 %ao{m}"""


def _widened(pairs: str) -> str:
    """16-bit sums added in pairs to 32 bits."""
    return f"call <8 x i32> @llvm.x86.avx2.pmadd.wd(<16 x i16> {pairs}, <16 x i16> splat (i16 1))"
