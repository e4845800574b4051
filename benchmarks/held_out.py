"""What a trained model knows of text it has not seen, beside counting: bits a byte and a character, by domain.

``python -m benchmarks.held_out TRAIN PACK [--checkpoints DIR]``: the rows of PACK that the run TRAIN held out, in units
that compare across tokenizers, by language, source and kind of piece. Beside the model stand a unigram and a trigram
that were counted on the very rows it was trained on. The trigram reads the text left to right, past the blanks, with
the two tokens before each (interpolated Kneser-Ney, discounts from the counts); it is spared the ends of blanks, which
only the model is asked for. ``--checkpoints`` adds the curve over those in a folder.

- *bits a byte*: of all targets, ends of blanks included, by the UTF-8 bytes they stand for;
- *bits a character*: the same by characters, whatever they are;
- *bits a Chinese character*: of the targets that hold one (or a part of its bytes), by the Chinese characters in them.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from glm_data.loading import PackedRows
from glm_data.model.attention import lay_out
from glm_data.model.model import GLM
from glm_data.model.store import read_description, read_tensors
from glm_data.training.batches import KINDS, flatten, rows_of_samples, split_rows
from glm_data.training.checkpoint import find_checkpoints
from glm_data.training.labels import PackLabels
from glm_data.training.losses import batch_loss, loss_weights
from glm_data.training.options import TrainOptions, step_bounds
from tokenizer import Tokenizer

Array = np.ndarray[Any, Any]
LEAST_TOKENS = 200
"""Groups of fewer targets are not printed."""


class Trigram:
    """P(c | a, b) by interpolated Kneser-Ney over ids below ``size``, counted in ``texts``."""

    def __init__(self, texts: Sequence[Array], size: int) -> None:
        self.size, self.base = size, size + 1  # one more: what stands before a text
        begin = np.array([size, size])
        flat = np.concatenate([part for text in texts for part in (begin, text)]).astype(np.int64)
        keys = (flat[:-2] * self.base + flat[1:-1]) * self.base + flat[2:]
        threes, counts = np.unique(keys[flat[2:] != size], return_counts=True)
        twos, behind = np.unique(threes % self.base**2, return_counts=True)
        ones = np.bincount(twos % self.base, minlength=self.base)[:size]
        self.orders = [_Counts(threes, counts, self.base), _Counts(twos, behind, self.base)]
        discount = _discount(ones)
        spread = discount * np.count_nonzero(ones) / ones.sum() / size
        self.lowest = np.maximum(ones - discount, 0) / ones.sum() + spread

    def probability(self, before: Array, c: Array) -> Array:
        """P(c | a, b), ``float64[N]``, with a and b in ``before[N, 2]``."""
        found, (a, b) = self.lowest[c], before.T
        for counts, context in zip(self.orders[::-1], (b, a * self.base + b), strict=True):
            found = counts.interpolate(context, c, found)
        return found


class _Counts:
    def __init__(self, keys: Array, counts: Array, base: int) -> None:
        self.keys, self.counts, self.base, self.discount = keys, counts, base, _discount(counts)
        self.contexts, first = np.unique(keys // base, return_index=True)
        self.totals = np.add.reduceat(counts, first)
        self.kinds = np.diff(np.append(first, len(keys)))

    def interpolate(self, context: Array, c: Array, lower: Array) -> Array:
        place, known = _find(self.contexts, context)
        here, seen = _find(self.keys, context * self.base + c)
        total = self.totals[place]
        own = np.where(seen, np.maximum(self.counts[here] - self.discount, 0), 0) / total
        return np.where(known, own + self.discount * self.kinds[place] / total * lower, lower)


def _find(table: Array, wanted: Array) -> tuple[Array, Array]:
    place = np.minimum(np.searchsorted(table, wanted), len(table) - 1)
    return place, table[place] == wanted


def _discount(counts: Array) -> float:
    once, twice = int(np.count_nonzero(counts == 1)), int(np.count_nonzero(counts == 2))
    return (once + 1) / (once + 2 * twice + 2)  # one more of each: never 0, and nothing to large counts


def texts_of(pack: PackedRows, row: int) -> Iterator[tuple[Array, Array]]:
    """Each piece of a row as it reads: token ids, and where in the row each is predicted (-1: it was shown)."""
    eop, batch = pack.specials["eop"], pack.batch([row])
    spans = pack.rows([row]).row_spans(0)
    for start, sep, _, _ in batch.pieces[0].tolist():
        ids, places, at = [], [], start
        own = spans[(spans[:, 0] >= start) & (spans[:, 0] < sep)]
        for mask, first, length in own[np.argsort(own[:, 0])].tolist():
            told = np.arange(first, first + length)
            told = told[batch.targets[0, told] != eop]
            ids += [batch.tokens[0, at:mask], batch.targets[0, told]]
            places += [np.full(mask - at, -1), told]
            at = mask + 1
        ids.append(batch.tokens[0, at:sep])
        places.append(np.full(sep - at, -1))
        yield np.concatenate(ids), np.concatenate(places)


@dataclass(frozen=True)
class Targets:
    """All targets of the held-out rows, ``[P]`` each, and names to group them by."""

    ids: Array
    context: Array
    """``int64[P, 2]``: the two tokens before each in the text; -1 for an end of a blank."""
    groups: dict[str, Array]
    """``bool[P]`` by name."""


def collect(pack: PackedRows, rows: Array, labels: PackLabels, trained: Array, vocab: int) -> Targets:
    """The targets of ``rows`` in the order that the model's losses come in."""
    ids, contexts, named = [], [], []
    seen = np.unique(np.concatenate([pack.origins(row)[:, 0] for row in trained.tolist()]))
    for row in rows.tolist():
        batch = pack.batch([row])
        flat, width = flatten(batch), batch.tokens.shape[1]
        places = lay_out(batch.pieces, width).index_T[flat.predict_P.numpy()]
        before = np.full((width, 2), -1)
        for text, where in texts_of(pack, row):
            told = np.flatnonzero(where >= 0)
            padded = np.concatenate([[vocab, vocab], text])
            before[where[told]] = np.stack([padded[told], padded[told + 1]], axis=1)
        language, source = labels.of(flat, np.array([row]))
        strange = np.full(len(places), not np.isin(pack.origins(row)[:, 0], seen).any())
        ids.append(flat.targets_P.numpy())
        contexts.append(before[places])
        named.append(np.stack([language, source, flat.kind_P, strange], axis=1))
    names = np.concatenate(named)
    groups = {"all": np.ones(len(names), bool)}
    columns = (labels.names.languages, labels.names.sources, [f"kind/{kind}" for kind in KINDS], ["", "new documents"])
    for column, known in enumerate(columns):
        groups |= {name: names[:, column] == number for number, name in enumerate(known) if name}
    groups["Chinese"] = np.any([here for name, here in groups.items() if name.startswith("lang/zh")], axis=0)
    return Targets(np.concatenate(ids), np.concatenate(contexts), groups)


@torch.no_grad()
def losses_of(model: GLM, pack: PackedRows, rows: Array) -> Array:
    """Nats of each target, in the order of :func:`collect`."""
    model.eval()
    found = []
    for row in rows.tolist():
        flat = flatten(pack.batch([row]))
        found.append(batch_loss(model, flat, loss_weights(flat, "token"))[1].numpy())
    return np.concatenate(found).astype(np.float64)


class Sizes:
    """Bytes, characters and Chinese characters that each id stands for, ``int64[V]``."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        texts = [np.frombuffer(tokenizer.decode_bytes([token]), np.uint8) for token in range(tokenizer.vocab_size)]
        self.bytes = np.array([len(text) for text in texts])
        self.characters = np.array([np.count_nonzero((text & 0xC0) != 0x80) for text in texts])
        # U+4000 to U+9FFF begin with these bytes; all but the first 3,520 of them are Chinese characters.
        self.chinese = np.array([np.count_nonzero((text >= 0xE4) & (text <= 0xE9)) for text in texts])
        parts = np.array([len(text) == 1 and text[0] >= 0x80 for text in texts])
        self.holds_chinese = (self.chinese > 0) | parts


def table(targets: Targets, nats: Array, unigram: Array, trigram: Array, sizes: Sizes) -> Iterator[str]:
    """Lines of figures by group, the largest first."""
    yield (
        f"{'':28}{'targets':>8}  {'nats a target: model, unigram, trigram':>40}"
        f"{'bits a byte':>13}{'character':>11}{'Chinese character':>19}"
    )
    told = targets.context[:, 1] >= 0
    for name, here in sorted(targets.groups.items(), key=lambda group: -group[1].sum()):
        if here.sum() < LEAST_TOKENS:
            continue
        both = here & told
        three = "".join(f"{column[both].mean():10.3f}" for column in (nats, unigram, trigram))
        bits, ids = nats[here].sum() / math.log(2), targets.ids[here]
        byte, character = (bits / max(1, size[ids].sum()) for size in (sizes.bytes, sizes.characters))
        chinese, characters = chinese_bits(ids, nats[here], sizes)
        last = f"{chinese:19.3f}" if characters > here.sum() / 4 else ""
        yield f"{name:28}{here.sum():8}  {three:>40}{byte:13.3f}{character:11.3f}{last}"


def chinese_bits(ids: Array, nats: Array, sizes: Sizes) -> tuple[float, int]:
    """Bits a Chinese character, and how many there are."""
    holds, characters = sizes.holds_chinese[ids], int(sizes.chinese[ids].sum())
    return float(nats[holds].sum() / math.log(2) / max(1, characters)), characters


def curve(folder: Path, model: GLM, pack: PackedRows, rows: Array, targets: Targets, sizes: Sizes) -> Iterator[str]:
    """Figures of the checkpoints in ``folder``, the oldest first; ends of blanks count."""
    from safetensors.torch import load_file

    yield "English bits a byte, Chinese bits a character and a Chinese character; nats a target of [gMASK], [MASK]:"
    for path in reversed(find_checkpoints(folder)):
        tensors = load_file(path)
        prefix = "parameters/"
        model.load_state_dict({key[len(prefix) :]: part for key, part in tensors.items() if key.startswith(prefix)})
        nats = losses_of(model, pack, rows)
        told = [f"{path.stem.removeprefix('step-').lstrip('0'):>8} steps"]
        for name, sums in (("lang/en", sizes.bytes), ("Chinese", sizes.characters)):
            here = targets.groups[name]
            told.append(f"{nats[here].sum() / math.log(2) / sums[targets.ids[here]].sum():8.3f}")
        told.append(f"{chinese_bits(targets.ids[here], nats[here], sizes)[0]:8.3f}")
        told += [f"{nats[targets.groups[f'kind/{kind}']].mean():8.3f}" for kind in ("gmask", "mask")]
        yield "".join(told)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.held_out", description=__doc__)
    parser.add_argument("train", type=Path)
    parser.add_argument("pack", type=Path)
    parser.add_argument("--checkpoints", type=Path, help="folder of checkpoints for the curve")
    parser.add_argument("--threads", type=int, default=2)
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    pack, description = PackedRows.open(given.pack), read_description(given.train)
    options: dict[str, Any] = description.training["options"]
    training, rows = split_rows(len(pack), options["held_out_rows"])
    bounds = step_bounds(TrainOptions(**options), len(training))
    trained = np.unique(rows_of_samples(0, bounds[-1], training, options["seed"], pack.order)[0])
    tokenizer = Tokenizer.load(given.train)
    sizes, vocab = Sizes(tokenizer), tokenizer.vocab_size
    targets = collect(pack, rows, PackLabels(pack), trained, vocab)
    texts = [text for row in trained.tolist() for text, _ in texts_of(pack, row)]
    counts = np.bincount(np.concatenate(texts), minlength=vocab) + 1
    unigram = -np.log((counts / counts.sum())[targets.ids])
    trigram = -np.log(Trigram(texts, vocab).probability(targets.context, targets.ids))
    model = GLM(description.model)
    model.load_state_dict(read_tensors(given.train))
    print(
        f"{description.training['facts']['parameters']:,} parameters, {bounds[-1]:,} rows trained on "
        f"({sum(map(len, texts)):,} tokens of text), {len(rows)} held out."
    )
    for line in table(targets, losses_of(model, pack, rows), unigram, trigram, sizes):
        print(line)
    if given.checkpoints:
        for line in curve(given.checkpoints, model, pack, rows, targets, sizes):
            print(line)


if __name__ == "__main__":
    main()
