"""A GLM over many processes, by torch's own engines: pipeline x data (replicated x sharded) x tensor parallel.

::

    mesh (pipeline, replicate, shard, tensor)
        pipeline    layers dealt to stages (1F1B, or interleaved with several stages a process): pipelining
        replicate   copies of the model: DDP, HSDP
        shard       one copy's weights, gradients and moments split: FSDP2
        tensor      each layer's heads and inner width split, tokens split in between (sequence): DTensor

GLM-130B: pipeline 8, tensor 4, 24 replicas. What is computed is ``model.py``'s layers, unchanged; two things differ in
form. The two halves of the GeGLU are matrices of their own (``SplitHalves``), so that each process can hold a part of
both; and the batch keeps its padding, so that all microbatches have one shape, as the pipeline wants.

The embedding is held by the first and the last stage, whose gradients of it are added up. All gradients are sums:
losses are divided by what the whole step weighs, over all processes, before anything goes back (nothing is averaged).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Annotated, Any, cast

import numpy as np
import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor, nn
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh
from torch.distributed.fsdp import FSDPModule, MixedPrecisionPolicy, fully_shard
from torch.distributed.pipelining import PipelineStage, Schedule1F1B, ScheduleInterleaved1F1B
from torch.distributed.tensor import DTensor, Replicate, Shard
from torch.distributed.tensor.parallel import (
    ColwiseParallel,
    PrepareModuleInput,
    RowwiseParallel,
    SequenceParallel,
    loss_parallel,
    parallelize_module,
)
from torch.utils.checkpoint import checkpoint

from glm_data.config import Config, Doc
from glm_data.errors import ConfigError
from glm_data.model.model import GLM, Layer, rotary_table, shrink_gradient
from glm_data.training.batches import FlatBatch
from glm_data.training.losses import attention_of, loss_weights, weight
from glm_data.training.options import TrainOptions
from glm_data.training.plan import split_layers


class Layout(Config, frozen=True, kw_only=True):
    """How a model is spread over processes; their product is the number of processes."""

    pipeline: Annotated[int, Doc("stages that the layers are dealt to")] = 1
    chunks: Annotated[int, Doc("stages of each process, interleaved; 1: plain 1F1B")] = 1
    replicate: Annotated[int, Doc("copies of the model")] = 1
    shard: Annotated[int, Doc("processes that share one copy's weights and moments (FSDP)")] = 1
    tensor: Annotated[int, Doc("processes that share each layer, with sequence parallelism")] = 1

    @property
    def processes(self) -> int:
        """How many processes the layout takes."""
        return self.pipeline * self.replicate * self.shard * self.tensor

    @property
    def data(self) -> int:
        """How many parts each step's rows are split into."""
        return self.replicate * self.shard


class SplitHalves(nn.Module):
    """``dense_h_to_4h`` with its two halves as matrices of their own; gives what the fused one gives."""

    def __init__(self, fused: nn.Linear) -> None:
        super().__init__()
        width = fused.out_features // 2
        self.x1, self.x2 = (nn.Linear(fused.in_features, width, device=fused.weight.device) for _ in range(2))
        with torch.no_grad():
            for half, linear in enumerate((self.x1, self.x2)):
                linear.weight.copy_(fused.weight[half * width : (half + 1) * width])
                linear.bias.copy_(fused.bias[half * width : (half + 1) * width])

    def forward(self, h_TD: Tensor) -> Tensor:
        """``[T, 2F]``, or this process's part of both halves."""
        return torch.cat([self.x1(h_TD), self.x2(h_TD)], dim=-1)


class Stage(nn.Module):
    """The layers ``first`` to ``end - 1`` of a model, with the embedding and the head where they belong.

    Called with the number of a microbatch; the first stage takes its tokens, the last gives the weighted loss of each
    flat token, 0 where nothing is predicted.
    """

    def __init__(self, model: GLM, first: int, end: int, tensor: DeviceMesh) -> None:
        super().__init__()
        self.config, self.shrink, self.tensor = model.config, model.config.shrink, tensor
        self.recompute = model.recompute
        self.is_first, self.is_last = first == 0, end == model.config.layers
        if self.is_first or self.is_last:
            self.word_embeddings = model.word_embeddings
        self.layers = nn.ModuleDict({str(number): model.layers[number] for number in range(first, end)})
        if self.is_last:
            self.final_layernorm = model.final_layernorm
        self.batches: Sequence[FlatBatch] = ()
        self.weights: Sequence[Tensor] = ()
        self.losses: dict[int, Tensor] = {}
        """Of each microbatch; the pipeline's first, made-up pass to learn shapes is overwritten by the real ones."""

    def forward(self, x_TD: Tensor, number: Tensor) -> Tensor:
        """Activations ``[T, D]`` for the next stage (this process's tokens of them), or losses ``[T]``."""
        batch = self.batches[int(number)]
        if self.is_first:
            # The same gradient as shrinking the weight's: what goes back is linear in it.
            x_TD = shrink_gradient(self.word_embeddings(batch.tokens_T), self.shrink)
        rotary = rotary_table(batch.positions_T, self.config, x_TD.dtype)
        attend = attention_of(cast(GLM, self), batch)
        for layer in self.layers.values():
            run = partial(checkpoint, layer, use_reentrant=False) if self.recompute else layer
            x_TD = run(x_TD, rotary, attend)
        return self._weighted_losses(self.final_layernorm(x_TD), batch, int(number)) if self.is_last else x_TD

    def _weighted_losses(self, x_TD: Tensor, batch: FlatBatch, number: int) -> Tensor:
        weight_VD = self.word_embeddings.weight
        if self.tensor.size() > 1:
            x_TD = DTensor.from_local(x_TD, self.tensor, [Shard(0)]).redistribute(placements=[Replicate()]).to_local()
        x_PD = x_TD.index_select(0, batch.predict_P)
        targets_P = batch.targets_P
        if self.tensor.size() > 1:
            x_PD = DTensor.from_local(x_PD, self.tensor, [Replicate()])
        scores_PV = F.linear(x_PD, weight_VD * self.shrink + weight_VD.detach() * (1 - self.shrink))
        losses_P = F.cross_entropy(scores_PV.float(), targets_P, reduction="none")
        if isinstance(losses_P, DTensor):
            losses_P = losses_P.full_tensor()
        self.losses[number] = losses_P.detach()
        losses_T = x_TD.new_zeros(len(batch.tokens_T), dtype=torch.float32)
        return losses_T.index_add(0, batch.predict_P, losses_P * self.weights[number])


def make_mesh(layout: Layout, device: str) -> DeviceMesh:
    """The mesh of all processes; :class:`ConfigError` if their number is not the layout's."""
    if layout.processes != dist.get_world_size():
        raise ConfigError(
            f"the layout takes {layout.processes} processes and {dist.get_world_size()} were started; "
            "change --nproc-per-node, or pipeline x replicate x shard x tensor."
        )
    shape = (layout.pipeline, layout.replicate, layout.shard, layout.tensor)
    return init_device_mesh(device, shape, mesh_dim_names=("pipeline", "replicate", "shard", "tensor"))


class ParallelEngine:
    """This process's part of a model spread by a layout: gradients, norm, update, as ``engine.py`` has them."""

    def __init__(self, model: GLM, options: TrainOptions, layout: Layout) -> None:
        self.options, self.layout, self.config = options, layout, model.config
        _check(model, options, layout)
        self.mesh = make_mesh(layout, options.device)
        self.place, self.tensor = self.mesh["pipeline"].get_local_rank(), self.mesh["tensor"]
        self.rank_of_data = self.mesh["replicate"].get_local_rank() * layout.shard + self.mesh["shard"].get_local_rank()
        self.data_group = self.mesh["replicate", "shard"]._flatten().get_group() if layout.data > 1 else None
        self.pipeline_group = self.mesh["pipeline"].get_group()
        model.recompute = options.recompute
        for layer in model.layers:
            cast(Layer, layer).mlp.dense_h_to_4h = SplitHalves(cast(Layer, layer).mlp.dense_h_to_4h)  # type: ignore[assignment]
        self.stages = self._stages(model)
        self.modules = [self._spread(stage) for stage in self.stages]
        self.parameters = {name: p for stage in self.stages for name, p in stage.named_parameters()}
        # AdamW works element by element: on this process's parts as plain tensors, which alias the parameters.
        self.parts = {name: nn.Parameter(_local(p.detach())) for name, p in self.parameters.items()}
        self.optimizer = torch.optim.AdamW(
            _groups(self.parts, options),
            lr=options.lr,
            betas=(options.beta1, options.beta2),
            eps=1e-8,
            foreach=True,
        )
        self.schedule = self._schedule() if layout.pipeline > 1 else None
        self.embedding_group = self._embedding_group()

    @property
    def micro_rows(self) -> int:
        """Rows of a microbatch."""
        return self.options.micro_rows or self.options.batch_rows // self.layout.data

    def _stages(self, model: GLM) -> list[Stage]:
        parts = split_layers(model.config, self.layout.pipeline * self.layout.chunks)
        bounds = np.cumsum([0, *parts]).tolist()
        mine = range(self.place, len(parts), self.layout.pipeline)
        return [Stage(model, bounds[part], bounds[part + 1], self.tensor) for part in mine]

    def _spread(self, stage: Stage) -> nn.Module:
        if self.layout.tensor > 1:
            _split_tensors(stage, self.tensor)
        if self.layout.shard == 1 and self.layout.replicate > 1:
            return nn.parallel.DistributedDataParallel(stage, process_group=self.mesh["replicate"].get_group())
        if self.layout.shard > 1:
            mesh = self.mesh["replicate", "shard"] if self.layout.replicate > 1 else self.mesh["shard"]
            half = torch.bfloat16 if self.options.precision == "bfloat16" else None
            policy = MixedPrecisionPolicy(param_dtype=half, reduce_dtype=torch.float32)
            for part in (*stage.layers.values(), stage):
                fully_shard(part, mesh=mesh, mp_policy=policy, reshard_after_forward=self.layout.pipeline == 1)
            for part in stage.modules():
                if isinstance(part, FSDPModule):
                    part.set_gradient_divide_factor(1.0)
                    part.set_force_sum_reduction_for_comms(True)  # gloo knows sums only
        return stage

    def _schedule(self) -> Any:
        group, device = self.pipeline_group, torch.device(self.options.device)
        total, layout = self.layout.pipeline * self.layout.chunks, self.layout
        stages = [
            PipelineStage(module, self.place + chunk * layout.pipeline, total, device, group=group)
            for chunk, module in enumerate(self.modules)
        ]
        count = self.options.batch_rows // (layout.data * self.micro_rows)
        settings: dict[str, Any] = {"n_microbatches": count, "loss_fn": _sum, "scale_grads": False}
        if layout.chunks > 1:
            return ScheduleInterleaved1F1B(stages, **settings)  # type: ignore[arg-type]
        return Schedule1F1B(stages[0], **settings)

    def _embedding_group(self) -> Any:
        """The processes of the first and the last stage, which both hold the embedding."""
        if self.layout.pipeline == 1:
            return None
        ranks = self.mesh.mesh.flatten(1).t().tolist()
        groups = {tuple(column): dist.new_group([column[0], column[-1]]) for column in ranks}
        return next(group for column, group in groups.items() if dist.get_rank() in column)

    def gradients(self, batches: Sequence[FlatBatch]) -> list[Tensor]:
        """Leave the step's gradients in the parameters; on the last stage, give the losses of each microbatch."""
        for parameter in self.parameters.values():
            parameter.grad = None
        device = torch.device(self.options.device)
        whole = torch.tensor(
            sum(weight(batch, self.options.weighting) for batch in batches), dtype=torch.float64, device=device
        )
        if self.data_group is not None:
            dist.all_reduce(whole, group=self.data_group)
        scale = self.layout.replicate if isinstance(self.modules[0], nn.parallel.DistributedDataParallel) else 1
        weights = [loss_weights(b, self.options.weighting, float(whole) / scale).to(device) for b in batches]
        for stage in self.stages:
            stage.batches, stage.weights, stage.losses = batches, weights, {}
        numbers = torch.arange(len(batches))
        with loss_parallel():
            if self.schedule is not None:
                self._run_schedule(numbers)
            else:
                self._run(numbers)
        if self.embedding_group is not None:
            for stage in self.stages:
                if stage.is_first or stage.is_last:
                    gradient = stage.word_embeddings.weight.grad
                    dist.all_reduce(_local(cast(Tensor, gradient)), group=self.embedding_group)
        found = self.stages[-1].losses
        return [found[number] for number in sorted(found)]

    def _run(self, numbers: Tensor) -> None:
        module = self.modules[0]
        for number in numbers:
            last = int(number) == len(numbers) - 1
            if isinstance(module, FSDPModule):
                module.set_requires_gradient_sync(last)
            if isinstance(module, nn.parallel.DistributedDataParallel) and not last:
                with module.no_sync():
                    torch.autograd.backward(module(number, number=number).sum())
            else:
                torch.autograd.backward(module(number, number=number).sum())

    def _run_schedule(self, numbers: Tensor) -> None:
        first, last = self.place == 0, self.place == self.layout.pipeline - 1
        target = {"target": numbers} if last else {}
        self.schedule.step(*([numbers] if first else []), number=numbers, return_outputs=False, **target)  # type: ignore[union-attr]

    def norm(self) -> float:
        """Norm of the whole gradient, the same in every process.

        Each process adds the squares of its parts, divided by how many processes hold the same part.
        """
        squared = torch.zeros((), dtype=torch.float64, device=self.options.device)
        for name, parameter in self.parameters.items():
            if parameter.grad is None:
                self.parts[name].grad = None
                continue
            gradient = parameter.grad
            if isinstance(gradient, DTensor):  # of a norm, each process has the sum over its tokens
                gradient = gradient.redistribute(placements=cast(DTensor, parameter).placements).to_local()
            self.parts[name].grad = gradient
            squared += gradient.double().square().sum() / self._holders(name, parameter)
        dist.all_reduce(squared)
        self._norm = squared.sqrt()
        return float(self._norm)

    def _holders(self, name: str, parameter: Tensor) -> int:
        """How many processes hold the same part of a parameter."""
        both_ends = self.layout.pipeline > 1 and name == "word_embeddings.weight"
        holders = self.layout.data * self.layout.tensor * (2 if both_ends else 1)
        if isinstance(parameter, DTensor):
            for dimension, placement in enumerate(parameter.placements):
                holders //= parameter.device_mesh.size(dimension) if not placement.is_replicate() else 1
        return holders

    def update(self, share: float) -> None:
        """Clip the gradient and move the weights with ``share`` of the highest learning rates."""
        if self.options.clip:
            nn.utils.clip_grads_with_norm_(self.parts.values(), self.options.clip, self._norm.float(), foreach=True)
        for group in self.optimizer.param_groups:
            group["lr"] = group["peak"] * share
        self.optimizer.step()

    def tensors(self) -> dict[str, Tensor]:
        """This process's weights and moments by name, to be saved, and loaded into, by ``sharded.py``."""
        found: dict[str, Tensor] = {}
        for name, parameter in self.parameters.items():
            found[f"parameters/{name}"] = parameter.detach()
            part = self.parts[name]
            state = self.optimizer.state[part]
            if not state:  # before the first step
                moments = {moment: torch.zeros_like(part) for moment in ("exp_avg", "exp_avg_sq")}
                state |= {"step": torch.tensor(0.0), **moments}
            found |= {
                f"{moment}/{name}": _spread_like(state[moment], parameter) for moment in ("exp_avg", "exp_avg_sq")
            }
        return found

    def loaded(self, steps: int) -> None:
        """Take note that :meth:`tensors` were filled with those after ``steps`` steps."""
        for state in self.optimizer.state.values():
            state["step"] = torch.tensor(float(steps))


def with_whole_matrices(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Weights by name with the halves that :class:`SplitHalves` parted joined again: those of a plain model."""
    found: dict[str, Tensor] = {}
    for name, tensor in tensors.items():
        if ".x1." in name:
            found[name.replace(".x1.", ".")] = torch.cat([tensor, tensors[name.replace(".x1.", ".x2.")]])
        elif ".x2." not in name:
            found[name] = tensor
    return found


def only(batch: FlatBatch, keep: np.ndarray) -> FlatBatch:
    """The batch with only those of its predicting tokens that ``keep`` (``bool[P]``) names."""
    chosen = torch.from_numpy(np.flatnonzero(keep))
    return replace(
        batch,
        predict_P=batch.predict_P[chosen],
        targets_P=batch.targets_P[chosen],
        kind_P=batch.kind_P[keep],
        row_P=batch.row_P[keep],
        piece_P=batch.piece_P[keep],
    )


def _check(model: GLM, options: TrainOptions, layout: Layout) -> None:
    config = model.config
    micro = options.micro_rows or options.batch_rows // layout.data
    if config.positions != "rotary" or config.feed_forward != "geglu":
        raise ConfigError("only models with rotary positions and GeGLU can be spread over processes.")
    if config.heads % layout.tensor or config.ffn % layout.tensor or config.vocab % layout.tensor:
        raise ConfigError(f"heads, ffn and vocab must be multiples of tensor {layout.tensor}.")
    if options.optimizer != "adamw" or options.batch_start or options.compile:
        raise ConfigError(
            "over many processes the optimizer is adamw, batches do not grow and nothing is compiled; "
            "change optimizer, batch_start or compile."
        )
    if options.teacher:
        raise ConfigError("over many processes there is no teacher; train the student in one process (glm-data train).")
    if options.precision == "float16" or (options.precision == "bfloat16" and layout.shard == 1):
        raise ConfigError("over many processes precision is float32, or bfloat16 with shard above 1.")
    if micro < 1 or options.batch_rows % (layout.data * micro):
        raise ConfigError(
            f"batch_rows {options.batch_rows} must be a multiple of {layout.data} data-parallel parts x micro_rows "
            f"{micro}."
        )
    if layout.pipeline > 1 and options.batch_rows // (layout.data * micro) < layout.pipeline * layout.chunks:
        raise ConfigError(
            f"a step has {options.batch_rows // (layout.data * micro)} microbatches for "
            f"{layout.pipeline * layout.chunks} pipeline stages; make micro_rows smaller."
        )
    if layout.replicate > 1 and layout.shard == 1 and (layout.tensor > 1 or layout.pipeline > 1):
        raise ConfigError("replicas beside tensor or pipeline parallelism need shard above 1 (FSDP).")


def _split_tensors(stage: Stage, mesh: DeviceMesh) -> None:
    def norm() -> SequenceParallel:
        return SequenceParallel(sequence_dim=0, use_local_output=True)

    rows = RowwiseParallel(output_layouts=Shard(0))
    for layer in stage.layers.values():
        plan = {
            "input_layernorm": norm(),
            "attention.query_key_value": ColwiseParallel(input_layouts=Shard(0)),
            "attention.dense": rows,
            "post_attention_layernorm": norm(),
            "mlp.dense_h_to_4h": PrepareModuleInput(
                input_layouts=Shard(0), desired_input_layouts=Replicate(), use_local_output=True
            ),
            "mlp.dense_h_to_4h.x1": ColwiseParallel(),
            "mlp.dense_h_to_4h.x2": ColwiseParallel(),
            "mlp.dense_4h_to_h": rows,
        }
        parallelize_module(cast(Layer, layer), mesh, plan)
    ends: dict[str, Any] = {}
    if stage.is_first or stage.is_last:
        ends["word_embeddings"] = RowwiseParallel(input_layouts=Replicate(), output_layouts=Shard(0))
    if stage.is_last:
        ends["final_layernorm"] = norm()
    if ends:
        parallelize_module(stage, mesh, ends)


def _groups(parameters: Mapping[str, nn.Parameter], options: TrainOptions) -> list[dict[str, Any]]:
    embedding = [p for name, p in parameters.items() if name == "word_embeddings.weight"]
    matrices = [p for name, p in parameters.items() if p.ndim > 1 and name != "word_embeddings.weight"]
    vectors = [p for p in parameters.values() if p.ndim == 1]
    groups = [
        {"params": embedding, "peak": options.embedding_lr or options.lr, "weight_decay": options.weight_decay},
        {"params": vectors, "peak": options.lr, "weight_decay": 0.0},
        {"params": matrices, "peak": options.lr, "weight_decay": options.weight_decay},
    ]
    return [group for group in groups if group["params"]]


def _local(tensor: Tensor) -> Tensor:
    return tensor.to_local() if isinstance(tensor, DTensor) else tensor


def _spread_like(part: Tensor, parameter: Tensor) -> Tensor:
    """``part`` as the piece of a tensor that is spread as ``parameter`` is."""
    if not isinstance(parameter, DTensor):
        return part
    mesh, placements = parameter.device_mesh, parameter.placements
    return DTensor.from_local(
        part.detach(), mesh, placements, run_check=False, shape=parameter.shape, stride=parameter.stride()
    )


def _sum(losses_T: Tensor, target: Tensor) -> Tensor:
    return losses_T.sum()
