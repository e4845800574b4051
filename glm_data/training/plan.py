"""What a run would take before it starts: operations, days, memory by part, by arithmetic alone.

Operations (PaLM, appendix B): 6 for each parameter and token, 8 if layers are computed again on the way back. MFU, the
model's use of the peak, counts 6; HFU, the hardware's, what is really done: 6 or 8. What attention itself costs, 12 x
layers x hidden for each pair of tokens that see each other, is told apart: published figures leave it out.

GLM-130B (paper, sections 2.3, 3 and B): 128.7 B parameters, 400 B tokens, 768 A100 of 40 GB as 4 x 8 x 24; 4.1e23
operations, 32.5 % MFU and 43.3 % HFU, a pipeline idle for 3.8 %, 60 days of the calendar. Those rates fill 46 days;
failures, restarts and spikes took the others (``goodput`` 0.765).
"""

from __future__ import annotations

from typing import Annotated, Any, Literal, NamedTuple

from glm_data.config import Config, Doc, require_least, require_shares
from glm_data.errors import ConfigError, did_you_mean
from glm_data.model.config import ModelConfig, count_parameters, layer_parameters


class Gpu(NamedTuple):
    """A card by its vendor's data sheet."""

    flops: float
    """Operations a second of dense half-precision matrices, sums in float32."""
    memory: float
    """Bytes."""


GPUS = {
    "v100": Gpu(125e12, 32e9),
    "a100-40": Gpu(312e12, 40e9),
    "a100": Gpu(312e12, 80e9),
    "h100": Gpu(989.4e12, 80e9),
    "h200": Gpu(989.4e12, 141e9),
    "rtx-3090": Gpu(71e12, 24e9),
    "rtx-4090": Gpu(165.2e12, 24e9),
}


class PlanOptions(Config, frozen=True, kw_only=True):
    """A run to be planned."""

    tokens: Annotated[float, Doc("tokens to train on")] = 400e9
    gpu: Annotated[str, Doc(f"card: {', '.join(GPUS)}")] = "h100"
    gpus: Annotated[int, Doc("number of cards")] = 8
    tensor: Annotated[int, Doc("cards that share each layer (tensor parallel)")] = 1
    pipeline: Annotated[int, Doc("stages that the layers are dealt to (pipeline parallel)")] = 1
    shard: Annotated[
        Literal["none", "optimizer", "all"],
        Doc("what data-parallel replicas share: nothing, optimiser states (ZeRO-1), or weights too (FSDP)"),
    ] = "all"
    batch_rows: Annotated[int, Doc("rows of a step, over all cards")] = 4224
    micro_rows: Annotated[int, Doc("rows a card computes at once")] = 1
    seq_length: Annotated[int, Doc("tokens of a row")] = 2048
    recompute: Annotated[bool, Doc("compute layers again on the way back instead of keeping what is inside")] = True
    mfu: Annotated[float, Doc("share of the peak that useful operations reach")] = 0.4
    goodput: Annotated[float, Doc("share of the calendar in which the run advances")] = 1.0

    def __post_init__(self) -> None:
        """Refuse layouts that cannot be."""
        if self.gpu not in GPUS:
            raise ConfigError(f"no card '{self.gpu}' is known.{did_you_mean(self.gpu, GPUS)} Known: {', '.join(GPUS)}.")
        require_least(self, 1, "gpus", "tensor", "pipeline", "batch_rows", "micro_rows", "seq_length")
        require_shares(self, "mfu", "goodput")
        if self.gpus % (self.tensor * self.pipeline):
            raise ConfigError(
                f"{self.gpus} cards cannot be {self.tensor} x {self.pipeline} x replicas; "
                "make gpus a multiple of tensor x pipeline."
            )
        if self.batch_rows % (self.replicas * self.micro_rows):
            raise ConfigError(
                f"{self.batch_rows} rows do not split into {self.replicas} replicas of {self.micro_rows} rows at once; "
                "change batch_rows or micro_rows."
            )

    @property
    def replicas(self) -> int:
        """Data-parallel copies of the model."""
        return self.gpus // (self.tensor * self.pipeline)

    @property
    def microbatches(self) -> int:
        """Microbatches of one replica in a step."""
        return self.batch_rows // (self.replicas * self.micro_rows)


def plan(config: ModelConfig, options: PlanOptions) -> dict[str, Any]:
    """All figures of the run; bytes, seconds and plain numbers."""
    parameters, passes = count_parameters(config), 8 if options.recompute else 6
    useful = 6 * parameters * options.tokens
    seconds = useful / (options.gpus * GPUS[options.gpu].flops * options.mfu)
    stages = split_layers(config, options.pipeline)
    return {
        "parameters": parameters,
        "flops": useful,
        "flops_done": passes * parameters * options.tokens,
        "attention_flops": attention_flops(config, options.seq_length) * options.tokens,
        "mfu": options.mfu,
        "hfu": options.mfu * passes / 6,
        "steps": options.tokens / (options.batch_rows * options.seq_length),
        "seconds_a_step": seconds / (options.tokens / (options.batch_rows * options.seq_length)),
        "replicas": options.replicas,
        "microbatches": options.microbatches,
        "bubble": (options.pipeline - 1) / (options.microbatches + options.pipeline - 1),
        "layers_of_stages": stages,
        "days_computing": seconds / 86400,
        "days": seconds / 86400 / options.goodput,
        "memory": max((_memory(config, options, stage, stages) for stage in range(len(stages))), key=_total),
        "gpu_memory": GPUS[options.gpu].memory,
        "serving": serving_memory(config),
    }


def split_layers(config: ModelConfig, stages: int) -> list[int]:
    """Layers of each pipeline stage, as even as can be when the first stage also has the embedding and the last the
    head: each of the two weighs as many layers as it has parameters, at least one. GLM-130B: 8, seven times 9 less."""
    if stages == 1:
        return [config.layers]
    if config.layers < stages:
        raise ConfigError(f"{config.layers} layers cannot be dealt to {stages} pipeline stages; use fewer stages.")
    extra = max(1, round(config.vocab * config.hidden / layer_parameters(config)))
    weights = [extra, *[0] * (stages - 2), extra]
    layers = [0] * stages
    for _ in range(config.layers):
        # To the lightest stage, of equals to the one without layers, then to the middle.
        lightest = min(
            range(stages), key=lambda stage: (layers[stage] > 0, weights[stage] + layers[stage], -stage % stages)
        )
        layers[lightest] += 1
    return layers


def attention_flops(config: ModelConfig, seq_length: int) -> float:
    """Operations of attention scores and sums for one token of a row that sees all of it, forward and backward."""
    return 12.0 * config.layers * config.hidden * seq_length


def activation_bytes(config: ModelConfig, options: PlanOptions) -> tuple[float, float]:
    """Bytes that one layer keeps for the way back of one microbatch, and what computing it needs.

    Half precision; with flash attention no scores are kept. A layer keeps 8 hidden and 3 feed-forward widths a token:
    the inputs and outputs of both norms, query, key, value and attention's output, both halves of the inner layer and
    their product. Tensor parallelism divides them (with sequence parallelism). Recomputing keeps one hidden width.
    """
    rows = options.micro_rows * options.seq_length
    inner = 3 if config.feed_forward == "geglu" else 2
    inside = 2.0 * rows * (8 * config.hidden + inner * config.ffn) / options.tensor
    return (2.0 * rows * config.hidden / options.tensor, inside) if options.recompute else (inside, 0.0)


def serving_memory(config: ModelConfig) -> dict[str, float]:
    """Bytes of the weights in FP16, INT8 and INT4 (one scale a row; embedding, norms and biases stay FP16), and of keys
    and values of one token."""
    inner = config.ffn * (2 if config.feed_forward == "geglu" else 1)
    matrices = config.layers * (4 * config.hidden**2 + config.hidden * (inner + config.ffn))
    scales = config.layers * (5 * config.hidden + inner)
    rest = 2.0 * (count_parameters(config) - matrices + scales)
    return {
        "fp16": 2.0 * count_parameters(config),
        "int8": matrices + rest,
        "int4": matrices / 2 + rest,
        "cache_token": 4.0 * config.layers * config.hidden,
    }


def _memory(config: ModelConfig, options: PlanOptions, stage: int, stages: list[int]) -> dict[str, float]:
    """Bytes on each card of a stage by part; 1F1B keeps at most ``stages - stage`` microbatches alive in it."""
    with_embedding = stage in (0, len(stages) - 1)
    held = (stages[stage] * layer_parameters(config) + with_embedding * config.vocab * config.hidden) / options.tensor
    share_weights = options.replicas if options.shard == "all" else 1
    share_states = options.replicas if options.shard != "none" else 1
    kept, inside = activation_bytes(config, options)
    alive = min(options.microbatches, len(stages) - stage)
    return {
        "stage": stage,
        "weights": 2 * held / share_weights,
        "gradients": 4 * held / share_weights,
        "optimizer": 12 * held / share_states,
        "activations": kept * stages[stage] * alive + inside,
    }


def _total(memory: dict[str, float]) -> float:
    return sum(bytes_ for part, bytes_ in memory.items() if part != "stage")
