"""``glm-data inspect``: packed rows as coloured text, part A with its masks, part B in its order."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from glm_data.cli.fields import EXISTING_FOLDER
from glm_data.cli.output import Output, output_options, visible
from glm_data.cli.shell import Command
from glm_data.errors import UsageError

if TYPE_CHECKING:
    from rich.text import Text

    from glm_data.loading.rows import PackedRows
    from tokenizer import Tokenizer

STYLES = {"gmask": "bold blue", "mask": "bold yellow", "mip": "bold green", "smask": "bold magenta"}
NAMES = {"gmask": "[gMASK] text", "mask": "[MASK] text", "mip": "MIP", "smask": "[sMASK] text"}
BLANKS = {"gmask": "gMASK", "mask": "MASK", "mip": "MASK", "smask": "sMASK"}
_PLAIN_WIDTH = 110


@click.command(
    "inspect",
    cls=Command,
    help="Look at rows of PACK: pieces with the documents they come from, part A with its masks, part B in its order "
    "with the position that each span begins at.",
    example="""
        glm-data inspect run/pack --row 7
        glm-data inspect run/pack --row 7 --places     # every place: token, position, target
        glm-data inspect run/pack --row 7 --epoch 1    # the masks of the second time that the row is read
    """,
)
@click.argument("pack", type=EXISTING_FOLDER)
@click.option("--row", "-r", type=click.IntRange(min=0), default=0, show_default=True, help="First row to show.")
@click.option("--rows", "-n", type=click.IntRange(min=1), default=1, show_default=True, help="How many rows.")
@click.option("--places", is_flag=True, help="List every place with its token, position and target.")
@click.option("--epoch", type=click.IntRange(0, 2**31), default=0, show_default=True, help="Mask set to show.")
@output_options
def inspect(pack: Path, row: int, rows: int, places: bool, epoch: int, as_json: bool, quiet: bool) -> None:
    """Print the rows."""
    from glm_data.loading.rows import PackedRows
    from tokenizer import Tokenizer

    packed = PackedRows.open(pack)
    if row >= len(packed):
        raise UsageError(f"--row {row} is outside '{pack}', which has {len(packed)} rows; the first is 0.")
    model = Tokenizer.load(pack)
    shown = [describe_row(packed, model, number, epoch) for number in range(row, min(row + rows, len(packed)))]
    output = Output(as_json=as_json, quiet=quiet)
    output.value(shown)
    if as_json:
        return
    for item in shown:
        _print_row(item, len(packed))
        if places:
            _print_places(packed, model, item["row"], epoch)


def describe_row(packed: PackedRows, model: Tokenizer, row: int, epoch: int = 0) -> dict[str, Any]:
    """One row as plain values: its pieces with origins, part A as a list of texts and masks, spans in part-B order."""
    from glm_data.packing.rows import KINDS

    rows = packed.whole_rows([row], epoch)
    tokens, spans = rows.tokens[0], rows.row_spans(0).tolist()
    origins = _origins(packed, row)
    pieces = []
    for start, sep, end, kind in rows.row_pieces(0).tolist():
        own = [span for span in spans if sep <= span[1] < end]
        pieces.append(
            {
                "kind": KINDS[kind],
                "start": start,
                "sep": sep,
                "end": end,
                "part_a": _part_a(tokens, start, sep, own, model),
                "spans": [_span(tokens, span, start, KINDS[kind], model) for span in own],
            }
        )
    used = sum(piece["end"] - piece["start"] for piece in pieces)
    targets = sum(span[2] for span in spans)
    return {"row": row, "used": used, "length": len(tokens), "targets": targets, "origins": origins, "pieces": pieces}


def _origins(packed: PackedRows, row: int) -> list[dict[str, Any]]:
    """Documents of a row: id, source, language, and the slice of their tokens."""
    from glm_data.loading.provenance import Documents

    slices = packed.origins(row).tolist()
    named = Documents(packed.folder).named(document for document, _, _ in slices)
    return [{**named[document], "offset": offset, "tokens": tokens} for document, offset, tokens in slices]


def text_of(tokens: Any, model: Tokenizer) -> str:
    """The text of ``tokens`` with task tokens by name: ``<eos>`` where a document ends."""
    from tokenizer import SPECIAL_PIECES

    parts, place = [], 0
    for at in (tokens < len(SPECIAL_PIECES)).nonzero()[0].tolist():
        parts += [model.decode(tokens[place:at].tolist()), SPECIAL_PIECES[tokens[at]]]
        place = at + 1
    return "".join([*parts, model.decode(tokens[place:].tolist())])


def _part_a(tokens: Any, start: int, sep: int, spans: list[list[int]], model: Tokenizer) -> list[str | int]:
    """Part A as texts and, for each mask, the number (from 1, in part-B order) of its span."""
    parts: list[str | int] = []
    place = start
    for mask, number in sorted((span[0], number) for number, span in enumerate(spans, 1)):
        parts += [text_of(tokens[place:mask], model), number]
        place = mask + 1
    return [*parts, text_of(tokens[place:sep], model)]


def _span(tokens: Any, span: list[int], start: int, kind: str, model: Tokenizer) -> dict[str, Any]:
    mask, first, length = span
    position = (mask if kind in ("mask", "smask") else first) - start
    text = text_of(tokens[first + 1 : first + length], model)
    return {"mask": mask, "start": first, "length": length, "position": position, "text": text}


# --- on the terminal --------------------------------------------------------------------------------------------------


def _print_row(row: dict[str, Any], total: int) -> None:
    from rich.text import Text

    kinds = ", ".join(dict.fromkeys(NAMES[piece["kind"]] for piece in row["pieces"]))
    head = f"row {row['row']} of {total}: {kinds}; {len(row['pieces'])} pieces"
    print_text(Text(f"{head}; {row['used']} of {row['length']} places used, {row['targets']} targets", "bold"))
    for origin in row["origins"]:
        place = f"tokens {origin['offset']}-{origin['offset'] + origin['tokens'] - 1}"
        about = "  ".join(visible(origin[name]) for name in ("source", "lang", "template") if origin[name])
        print_text(Text(f"  from {visible(origin['id'])}  {about}  {place}", "dim"))
    for number, piece in enumerate(row["pieces"], 1):
        for line in _piece_lines(number, piece):
            print_text(line)


def _piece_lines(number: int, piece: dict[str, Any]) -> Iterator[Text]:
    from rich.text import Text

    style = STYLES[piece["kind"]]
    name = BLANKS[piece["kind"]]
    yield Text(f"piece {number}, {NAMES[piece['kind']]}: places {piece['start']}-{piece['end'] - 1}", style)
    part_a = Text("  A  ")
    for part in piece["part_a"]:
        if isinstance(part, int):
            part_a.append(f"[{name}]{part}", style)
        else:
            part_a.append(visible(part))
    yield part_a
    for index, span in enumerate(piece["spans"], 1):
        line = Text("  B  " if index == 1 else "     ")
        line.append(f"{index} ", style)
        yield line.append(visible(span["text"])).append(f"  at position {span['position']}", "dim")


def _print_places(packed: PackedRows, model: Tokenizer, row: int, epoch: int) -> None:
    from rich.text import Text

    from glm_data.cli.output import table

    batch = packed.batch([row], epoch=epoch)
    lines = [("place", "segment", "position", "token", "text", "target", "text")]
    for place in range(int(batch.pieces[0][:, 2].max())):
        token, target = int(batch.tokens[0, place]), int(batch.targets[0, place])
        counts = bool(batch.loss_mask[0, place])
        said = (str(target), visible(text_of(batch.targets[0, place : place + 1], model))) if counts else ("", "")
        where = (str(place), str(batch.segments[0, place]), str(batch.position_ids[0, place]))
        lines.append((*where, str(token), visible(text_of(batch.tokens[0, place : place + 1], model)), *said))
    for line in table(lines):
        print_text(Text(line))


def print_text(text: Text, indent: int = 0) -> None:
    """Print styled text, wrapped to the terminal or to a fixed width where there is none."""
    from rich.console import Console
    from rich.padding import Padding

    console = Console(file=sys.stdout, width=None if sys.stdout.isatty() else _PLAIN_WIDTH, highlight=False)
    console.print(Padding(text, (0, 0, 0, indent), expand=False) if indent else text)
