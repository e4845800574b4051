"""``glm-data inspect``: packed rows as coloured text, part A with its masks, part B in its order."""

from __future__ import annotations

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
    from glm_data.viewer.packed import Piece, RowView, Stretch
    from tokenizer import Tokenizer


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
    from glm_data.loading.provenance import Documents
    from glm_data.loading.rows import PackedRows
    from glm_data.viewer.packed import Vocabulary, view_row
    from tokenizer import Tokenizer

    packed = PackedRows.open(pack)
    if row >= len(packed):
        raise UsageError(f"--row {row} is outside '{pack}', which has {len(packed)} rows; the first is 0.")
    model, documents = Tokenizer.load(pack), Documents(pack)
    wanted = range(row, min(row + rows, len(packed)))
    words = Vocabulary(model)
    views = [view_row(packed, words, documents, number, epoch) for number in wanted]
    Output(as_json=as_json, quiet=quiet).value([tell_row(view, model) for view in views])
    if as_json:
        return
    for view in views:
        _print_row(view)
        if places:
            _print_places(packed, model, view.row, epoch)


def tell_row(view: RowView, model: Tokenizer) -> dict[str, Any]:
    """One row as plain values: its pieces with origins, part A as a list of texts and masks, spans in part-B order."""
    return {
        "row": view.row,
        "used": view.used,
        "length": view.length,
        "targets": view.targets,
        "origins": [{name: getattr(item, name) for name in item.__struct_fields__[1:]} for item in view.origins],
        "pieces": [_tell_piece(view, piece, model) for piece in view.pieces],
    }


def _tell_piece(view: RowView, piece: Piece, model: Tokenizer) -> dict[str, Any]:
    """Part A has, for each mask, the number (from 1, in part-B order) of its span."""
    tokens = view.tokens
    part_a: list[str | int] = []
    place = piece.start
    for mask, number in sorted((blank.mask, number) for number, blank in enumerate(piece.blanks, 1)):
        part_a += [text_of(tokens[place:mask], model), number]
        place = mask + 1
    spans = [
        {
            **{name: getattr(blank, name) for name in ("mask", "start", "length", "position")},
            "text": text_of(tokens[blank.start + 1 : blank.start + blank.length], model),
        }
        for blank in piece.blanks
    ]
    bounds = {name: getattr(piece, name) for name in ("kind", "start", "sep", "end")}
    return {**bounds, "part_a": [*part_a, text_of(tokens[place : piece.sep], model)], "spans": spans}


def text_of(tokens: Any, model: Tokenizer) -> str:
    """The text of ``tokens`` with task tokens by name: ``<eos>`` where a document ends."""
    from tokenizer import SPECIAL_PIECES

    parts, place, ids = [], 0, list(tokens)
    for at in [at for at, id in enumerate(ids) if id < len(SPECIAL_PIECES)]:
        parts += [model.decode(ids[place:at]), SPECIAL_PIECES[ids[at]]]
        place = at + 1
    return "".join([*parts, model.decode(ids[place:])])


# --- on the terminal --------------------------------------------------------------------------------------------------


def _print_row(view: RowView) -> None:
    from rich.text import Text

    from glm_data.cli.paint import NAMES, print_text

    kinds = ", ".join(dict.fromkeys(NAMES[piece.kind] for piece in view.pieces))
    head = f"row {view.row} of {view.rows}: {kinds}; {len(view.pieces)} pieces"
    print_text(Text(f"{head}; {view.used} of {view.length} places used, {view.targets} targets", "bold"))
    for origin in view.origins:
        place = f"tokens {origin.offset}-{origin.offset + origin.tokens - 1}"
        about = "  ".join(visible(word) for word in (origin.source, origin.lang, origin.template) if word)
        print_text(Text(f"  from {visible(origin.id)}  {about}  {place}", "dim"))
    for number, piece in enumerate(view.pieces, 1):
        for line in _piece_lines(number, piece):
            print_text(line)


def _piece_lines(number: int, piece: Piece) -> Iterator[Text]:
    from rich.text import Text

    from glm_data.cli.paint import COLOURS, NAMES

    style = COLOURS[piece.kind]
    yield Text(f"piece {number}, {NAMES[piece.kind]}: places {piece.start}-{piece.end - 1}", style)
    yield Text("  A  ").append(_painted(piece.part_a, {blank.mask: n for n, blank in enumerate(piece.blanks, 1)}))
    for index, blank in enumerate(piece.blanks, 1):
        line = Text("  B  " if index == 1 else "     ").append(f"{index} ", style)
        yield line.append(_painted(blank.text, {})).append(f"  at position {blank.position}", "dim")


def _painted(stretches: list[Stretch], numbers: dict[int, int]) -> Text:
    """Behind a mask stands the number of its span."""
    from glm_data.cli.paint import paint
    from glm_data.viewer.styled import Span

    return paint(Span(f"{item.text}{numbers.get(item.place, '')}", item.style) for item in stretches)


def _print_places(packed: PackedRows, model: Tokenizer, row: int, epoch: int) -> None:
    from rich.text import Text

    from glm_data.cli.output import table
    from glm_data.cli.paint import print_text

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
