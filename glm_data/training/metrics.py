"""What a run says of itself: its figures, its speed, a picture of the loss.

MFU is useful operations a second over the device's peak: 6 for each parameter of the layers and each token, 6 x
vocabulary x hidden for each loss token, 12 x hidden for each pair of tokens that see each other, in each layer. HFU
counts the layers' and pairs' 8 / 6 times where layers are recomputed. Padding and masked pairs count in neither. The
peak is the data sheet's, of dense matrices in the run's precision; no card known, no MFU.
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import msgspec
import torch

from glm_data import files
from glm_data.model.config import ModelConfig, layer_parameters
from glm_data.stage import RUN
from glm_data.training.options import TrainOptions
from glm_data.training.plan import GPUS
from glm_data.training.tensorboard import Events

METRICS, SPEED, CURVE = "metrics.jsonl", "training.jsonl", "loss.svg"
_CARDS = {"H200": "h200", "H100": "h100", "A100": "a100", "V100": "v100", "4090": "rtx-4090", "3090": "rtx-3090"}
"""Part of the name that a card gives itself -> its name in the plan's table."""


def operations(config: ModelConfig, tokens: int, loss_tokens: int, pairs: int) -> tuple[float, float]:
    """Useful operations of the layers and their attention, and of the head, forward and backward."""
    layers = 6.0 * config.layers * (layer_parameters(config) * tokens + 2 * config.hidden * pairs)
    return layers, 6.0 * config.vocab * config.hidden * loss_tokens


class Clock:
    """Measures speed into ``training.jsonl`` of ``folder``, apart from all that must be the same in every run.

    ``devices`` work on it together: the peak is that of all.
    """

    def __init__(self, folder: Path, config: ModelConfig, options: TrainOptions, steps: int, devices: int = 1) -> None:
        self.path, self.config, self.options, self.steps = folder / SPEED, config, options, steps
        self.peak = devices * device_peak(options)
        self.started = self.last = time.perf_counter()
        self._clear()

    def _clear(self) -> None:
        self.tokens = self.loss_tokens = self.pairs = self.made = 0
        self.waited = 0.0

    def count(self, tokens: int, loss_tokens: int, pairs: int, waited: float) -> None:
        """Take note of a step: what it computed, and the seconds it waited for its rows."""
        self.tokens, self.loss_tokens, self.pairs = (
            self.tokens + tokens,
            self.loss_tokens + loss_tokens,
            self.pairs + pairs,
        )
        self.waited, self.made = self.waited + waited, self.made + 1

    def lap(self, line: dict[str, Any]) -> dict[str, Any]:
        """Note the speed since the last lap; returns ``line`` with it."""
        now = time.perf_counter()
        seconds = max(1e-9, now - self.last)
        speed = {
            "seconds": now - self.started,
            "tokens_per_second": self.tokens / seconds,
            "loss_tokens_per_second": self.loss_tokens / seconds,
            "data_wait": self.waited / seconds,
            "eta_seconds": (self.steps - line["step"]) * seconds / max(1, self.made),
            **self._use_of_peak(seconds),
        }
        with self.path.open("ab") as handle:
            handle.write(msgspec.json.encode({"step": line["step"], "steps": self.steps, **speed}) + b"\n")
        self.last = now
        self._clear()
        return {**line, **speed, "steps": self.steps}

    def _use_of_peak(self, seconds: float) -> dict[str, float]:
        layers, head = operations(self.config, self.tokens, self.loss_tokens, self.pairs)
        found = {"flops_per_second": (layers + head) / seconds}
        if self.peak:
            done = layers * (8 / 6 if self.options.recompute else 1) + head
            found |= {
                "mfu": (layers + head) / seconds / self.peak,
                "hfu": done / seconds / self.peak,
                "peak": self.peak,
            }
        if self.options.device == "cuda":
            found["memory_bytes"] = torch.cuda.max_memory_allocated()
        return found


class Journal:
    """Where the lines of a run in ``folder`` go: ``metrics.jsonl``, which is the same in every run, and with the speed
    added ``training.jsonl`` and, if the options want them, TensorBoard's events. Opened when the run goes on."""

    def __init__(self, folder: Path, config: ModelConfig, options: TrainOptions, steps: int, devices: int = 1) -> None:
        self.clock = Clock(folder / RUN, config, options, steps, devices)
        self.events: Events | None = None
        if options.tensorboard:
            speeds = {line["step"]: line for line in _lines(folder / RUN / SPEED)}
            lines = _lines(folder / METRICS)
            self.events = Events(folder / RUN, ({**speeds.get(line["step"], {}), **line} for line in lines))
        self._metrics = (folder / METRICS).open("ab")

    def __enter__(self) -> Journal:
        return self

    def __exit__(self, *_: object) -> None:
        self._metrics.close()
        if self.events is not None:
            self.events.close()

    def write(self, line: dict[str, Any]) -> dict[str, Any]:
        """Write ``line``; returns it with the speed since the one before."""
        self._metrics.write(msgspec.json.encode(line) + b"\n")
        self._metrics.flush()
        timed = self.clock.lap(line)
        if self.events is not None:
            self.events.add(timed)
        return timed

    @property
    def size(self) -> int:
        """Bytes of metrics.jsonl so far."""
        return self._metrics.tell()


def _lines(path: Path) -> list[dict[str, Any]]:
    return [msgspec.json.decode(line) for line in path.read_bytes().splitlines()] if path.exists() else []


def device_peak(options: TrainOptions) -> float:
    """Operations a second of the run's device at its best; 0 where it is not known."""
    if options.device != "cuda" or options.precision == "float32":
        return 0.0
    name = torch.cuda.get_device_name()
    return next((GPUS[card].flops for part, card in _CARDS.items() if part in name), 0.0)


def write_curve(folder: Path, metrics: Path) -> None:
    """Draw the loss of ``metrics`` by step into ``loss.svg``, all of it and [MASK] and [gMASK] apart."""
    lines = _lines(metrics)
    curves = {name: [(line["step"], line[name]) for line in lines if name in line] for name in _COLOURS}
    files.write_bytes(folder / CURVE, draw({name: curve for name, curve in curves.items() if curve}).encode())


_COLOURS = {"loss": "#1f4e79", "loss/gmask": "#c0504d", "loss/mask": "#6a8f3c", "loss/mip": "#8064a2"}
_WIDTH, _HEIGHT, _EDGE = 720, 360, 48


def draw(curves: dict[str, list[tuple[int, float]]]) -> str:
    """An SVG of curves by step, with a scale of whole grid lines; nothing but text, so the same bytes every time."""
    points = [point for curve in curves.values() for point in curve] or [(0, 0.0)]
    last = max(step for step, _ in points)
    low, high = min(value for _, value in points), max(value for _, value in points)
    high = max(high, low + 0.1)

    def place(step: float, value: float) -> tuple[float, float]:
        across = (_WIDTH - 2 * _EDGE) * step / max(1, last)
        return round(_EDGE + across, 1), round(
            _HEIGHT - _EDGE - (_HEIGHT - 2 * _EDGE) * (value - low) / (high - low), 1
        )

    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {_HEIGHT}"',
        'font-family="sans-serif" font-size="12">',
        f'<rect width="{_WIDTH}" height="{_HEIGHT}" fill="white"/>',
    ]
    for share in (0, 0.25, 0.5, 0.75, 1):
        value, step = low + share * (high - low), share * last
        (left, y), (x, bottom) = place(0, value), place(step, low)
        parts += [
            f'<path d="M{left} {y}H{_WIDTH - _EDGE}" stroke="#ddd"/>',
            f'<text x="{left - 6}" y="{y + 4}" text-anchor="end">{value:.2f}</text>',
            f'<text x="{x}" y="{bottom + 18}" text-anchor="middle">{step:,.0f}</text>',
        ]
    for number, (name, curve) in enumerate(curves.items()):
        path = " ".join(f"{x},{y}" for x, y in (place(*point) for point in curve))
        colour, top = _COLOURS.get(name, "#444"), _EDGE - 24 + 14 * number
        parts += [
            f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="1.5"/>',
            f'<text x="{_WIDTH - _EDGE}" y="{top}" text-anchor="end" fill="{colour}">{name}</text>',
        ]
    parts.append(f'<text x="{_WIDTH / 2}" y="{_HEIGHT - 8}" text-anchor="middle">step; nats a loss token</text></svg>')
    return "\n".join(parts) + "\n"
