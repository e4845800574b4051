"""A recipe with comments, written from a look at somebody's folder."""

from __future__ import annotations

from collections.abc import Sequence
from string import Template

from glm_data.planning.sample import Look

_SIZES = ((2e6, 2048), (20e6, 8000), (500e6, 32_000), (5e9, 50_000))
"""Vocabularies by the text there is, up to so many bytes."""
_LARGEST = 147_456
_LEAST_SHARE = 0.005
"""A language below this share of the text gets no weight of its own."""

_RECIPE = Template("""\
# What glm-data does with these inputs, stage by stage. Written by `glm-data init` from their beginnings: change what
# you like. Each section has the options of `glm-data <stage> --help`, with _ for -; what it does not say has the
# default. A stage without a section is left out.
#
#   glm-data plan $name                what it would take
#   glm-data run $name --out my-run    do it; run again to go on after an interruption
#
# Seen: $seen

inputs:
$inputs

# Clean, name the language, drop what no reader would miss; what is dropped lies beside it with its reason.
# $dropped
filter:
  profile: bilingual

# Exact copies go by hash, near-duplicates by MinHash, each verified; `glm-data dedupe plan` shows the trade-off.
dedupe:
  threshold: 0.8

# Evaluation sets that are to be reported must not be trained on. Name yours in a file as docs/decontaminate.md says:
#
# decontaminate:
#   evaluation: evaluation.yaml

# $vocabulary
tokenizer:
  vocab_size: $vocab_size
  weights: $weights

tokenize: {}

# Instruction data (MIP) is mixed in where there is some; see `glm-data mip render --help` for the mixture file:
#
# mip:
#   manifest: mixture.yaml

# Rows of 2048 tokens with [MASK] and [gMASK] spans. `preset: glm-130b` is the published recipe: running text, cut
# anywhere; `documents` keeps documents apart. `mix` and `languages` set shares.
pack:
  preset: documents

# A model of 0.6 M parameters to see that the rows can be learnt from; `glm-data plan train` plans a real one.
#
# train:
#   steps: 300
""")


def write_recipe(look: Look, inputs: Sequence[str], name: str) -> str:
    """The text of a recipe for ``inputs`` as they looked; ``name`` is what it will be called."""
    vocab_size = choose_vocabulary(look.kept_bytes)
    return _RECIPE.substitute(
        name=name,
        seen=_seen(look),
        inputs="\n".join(f"  - {_quoted(given)}" for given in inputs),
        dropped=_dropped(look),
        vocabulary=f"A vocabulary for {_size(look.kept_bytes)} of text; GLM-130B has 150,000 pieces for 2 TB.",
        vocab_size=vocab_size,
        weights="{" + ", ".join(f"{name}: {share:.2f}" for name, share in language_weights(look).items()) + "}",
    )


def choose_vocabulary(text_bytes: float) -> int:
    """A vocabulary that so much text can fill."""
    return next((pieces for most, pieces in _SIZES if text_bytes <= most), _LARGEST)


def language_weights(look: Look) -> dict[str, float]:
    """Shares of the tokenizer's training text by language: those of the text itself."""
    sizes: dict[str, float] = {}
    for part in look.kept:
        name = "zh" if part.lang.startswith("zh") else part.lang if part.lang in ("en", "ja", "ko") else "other"
        sizes[name] = sizes.get(name, 0.0) + part.text_bytes
    whole = sum(sizes.values()) or 1.0
    shares = {name: size / whole for name, size in sizes.items() if size / whole >= _LEAST_SHARE}
    return dict(sorted(shares.items(), key=lambda item: -item[1])) or {"zh": 0.5, "en": 0.5}


def _seen(look: Look) -> str:
    kinds = ", ".join(f"{count} {name}" for name, count in look.formats.most_common())
    return (
        f"{look.files:,} files of {_size(look.bytes)} ({kinds} among {look.sampled} looked at), about "
        f"{look.documents:,.0f} documents, {_size(look.text_bytes)} of text."
    )


def _dropped(look: Look) -> str:
    if not look.documents:
        return "Nothing was looked at."
    share = 1 - look.kept_documents / look.documents
    reasons = ", ".join(reason for reason, _ in look.dropped.most_common(4))
    return f"Of the documents looked at it drops {share:.1%}" + (f", mostly as {reasons}." if reasons else ".")


def _size(count: float) -> str:
    for unit, scale in (("TB", 1e12), ("GB", 1e9), ("MB", 1e6)):
        if count >= scale:
            return f"{count / scale:.1f} {unit}"
    return f"{count / 1e3:.1f} kB"


def _quoted(text: str) -> str:
    """``text`` as a YAML scalar in double quotes, whatever is in it."""
    import json

    return json.dumps(text, ensure_ascii=False)
