"""What a model makes of prompts: blanks filled in, texts continued."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click
import msgspec

from glm_data.cli.output import visible
from glm_data.generation.blanks import GMASK, MASK

if TYPE_CHECKING:
    from glm_data.generation.options import GenerationOptions


class Completion(msgspec.Struct, frozen=True, kw_only=True):
    """A prompt and the model's text for each of its blanks; a prompt without ``[MASK]`` has one blank, at its end."""

    prompt: str
    filled: tuple[str, ...]

    def parts(self) -> tuple[str, ...]:
        """The prompt's text around the blanks: one part more than there are blanks."""
        if MASK in self.prompt:
            return tuple(self.prompt.split(MASK))
        return self.prompt.removesuffix(GMASK), ""

    def text(self) -> str:
        """The prompt with its blanks filled."""
        first, *rest = self.parts()
        return first + "".join(filled + part for filled, part in zip(self.filled, rest, strict=True))

    def shown(self) -> str:
        """The text with what the model wrote in brackets, and in colour on terminals; nothing in it steers one."""
        first, *rest = map(visible, self.parts())
        blanks = (click.style(f"[{visible(filled)}]", fg="cyan", bold=True) for filled in self.filled)
        return first + "".join(blank + part for blank, part in zip(blanks, rest, strict=True))


def complete(
    folder: Path, prompts: Sequence[str], options: GenerationOptions | None = None, device: str = "cpu"
) -> list[Completion]:
    """Fill the blanks of ``prompts`` with the model in ``folder``, greedily by default; many side by side."""
    from glm_data.generation.glm import Glm

    model = Glm.load(folder, device)
    masked = [prompt for prompt in prompts if MASK in prompt]
    open_ended = [prompt for prompt in prompts if MASK not in prompt]
    infilled = iter(model.infill_many(masked, options))
    continued = iter(model.generate_many(open_ended, options))
    return [
        Completion(prompt=prompt, filled=next(infilled).answers if MASK in prompt else (next(continued),))
        for prompt in prompts
    ]
