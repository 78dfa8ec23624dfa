"""A DINOv2 of transformers among the constants of an ONNX graph.

PyTorch's export, of the model alone or of a larger one around it, keeps the names of parameters,
but the weights of linear layers and the position embeddings are constants without one. A linear
layer's weight [in, out] is what the product multiplies with to which the layer's bias is added.
"""

from __future__ import annotations

import math
import re
from collections import defaultdict
from collections.abc import Iterator
from math import prod
from typing import TYPE_CHECKING, Any

from vista.errors import UserError
from vista.foreign.onnx import Graph, Operation, Tensor

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

_PATCHES = "embeddings.patch_embeddings.projection.weight"
_POSITIONS = "embeddings.position_embeddings"
_REGISTERS = "embeddings.register_tokens"
# Linear layers of a block, and the names that they have in newer versions of transformers.
_LINEAR = {
    "attention.attention.query": "attention.q_proj",
    "attention.attention.key": "attention.k_proj",
    "attention.attention.value": "attention.v_proj",
    "attention.output.dense": "attention.o_proj",
    "mlp.fc1": "mlp.fc1",
    "mlp.fc2": "mlp.fc2",
}
_VECTORS = ("norm1.weight", "norm1.bias", "norm2.weight", "norm2.bias")
_SCALES = ("layer_scale1.lambda1", "layer_scale2.lambda1")
_HEAD = 64  # channels of a head in all published sizes


class Dinov2Layout:
    """A DINOv2 among the constants of a graph.

    Attributes:
        prefix: what the names of its parameters begin with.
        width: of the tokens; hidden: of the MLPs.
        blocks: their number.
        patch: side of a patch, px.
        positions: patches of the grid that the position embeddings are made for.
    """

    def __init__(self, graph: Graph) -> None:
        self.graph = graph
        ends = [name for name in graph.tensors if f".{name}".endswith(f".{_PATCHES}")]
        if len(ends) != 1:
            raise self._other(f"{len(ends)} tensors named {_PATCHES}, not one")
        self.prefix = ends[0].removesuffix(_PATCHES)
        if f"{self.prefix}{_REGISTERS}" in graph.tensors:
            raise self._other(f"register tokens ({_REGISTERS}), which are not read")
        shape = graph.tensors[ends[0]].shape
        if len(shape) != 4 or shape[1] != 3 or shape[2] != shape[3] or min(shape) < 1:
            raise self._other(f"a {_PATCHES} of the shape {list(shape)}, not [width, 3, p, p]")
        self.width, self.patch = shape[0], shape[2]
        block = re.compile(rf"{re.escape(self.prefix)}encoder\.layer\.(\d+)\.")
        numbers = {int(match[1]) for name in graph.tensors if (match := block.match(name))}
        self.blocks = len(numbers)
        if numbers != set(range(self.blocks)) or not numbers:
            raise self._other(f"{self.blocks} blocks encoder.layer.*, not 0, 1, ...")
        self.hidden = prod(self._tensor("encoder.layer.0.mlp.fc1.bias").shape)
        self._made_by = {name: op for op in graph.operations for name in op.outputs}
        self._added: defaultdict[str, list[Operation]] = defaultdict(list)
        for operation in graph.operations:
            if operation.operator == "Add":
                for name in operation.inputs:
                    self._added[name].append(operation)
        self._places = self._position_embeddings()
        self.positions = sum(graph.tensors[name].shape[1] for name in self._places) - 1
        if self.positions < 1 or math.isqrt(self.positions) ** 2 != self.positions:
            raise self._other(f"position embeddings of {self.positions} patches, not a square")

    def check_size(self, size: int) -> None:
        """Raise UserError where images of `size` px are not divided by the patches."""
        if size % self.patch:
            raise UserError(
                f"{self.graph.path}: size {size} px is no multiple of the model's patches of "
                f"{self.patch} px; correct the source's `size`"
            )

    def config(self, heads: int | None) -> dict[str, Any]:
        """Return the content of config.json. Raises UserError where heads do not divide the
        width, or the width the MLP's."""
        heads = heads or max(1, self.width // _HEAD)
        if self.width % heads:
            raise UserError(
                f"{self.graph.path}: {heads} heads do not divide its width {self.width}; set the "
                "source's `heads`"
            )
        if self.hidden % self.width or not self.hidden:
            raise self._other(f"MLPs of {self.hidden} for a width of {self.width}")
        return {
            "architectures": ["Dinov2Model"],
            "model_type": "dinov2",
            "dtype": "float32",
            "hidden_size": self.width,
            "num_hidden_layers": self.blocks,
            "num_attention_heads": heads,
            "mlp_ratio": self.hidden // self.width,
            "patch_size": self.patch,
            "image_size": math.isqrt(self.positions) * self.patch,
            # No part of what is exported: it takes no part in features.
            "use_mask_token": False,
        }

    def weights(self) -> Iterator[tuple[str, NDArray[np.float32]]]:
        """Yield the parameters of the model by name. Raises UserError where one is not there or
        has another shape."""
        import numpy as np

        d, p = self.width, self.patch
        yield "embeddings.cls_token", self._array("embeddings.cls_token", (1, 1, d))
        yield _PATCHES, self._array(_PATCHES, (d, 3, p, p))
        bias = _PATCHES.replace("weight", "bias")
        yield bias, self._array(bias, (d,))
        parts = [self.graph.array(name) for name in self._places]
        yield _POSITIONS, np.concatenate(parts, axis=1)
        for number in range(self.blocks):
            block = f"encoder.layer.{number}."
            for name in (*_VECTORS, *_SCALES):
                yield block + name, self._array(block + name, (d,))
            for name, newer in _LINEAR.items():
                there = f"{self.prefix}{block}{newer}.bias" in self.graph.tensors
                held = block + (newer if there else name)
                rows = self.hidden if name == "mlp.fc1" else d
                columns = self.hidden if name == "mlp.fc2" else d
                yield f"{block}{name}.bias", self._array(f"{held}.bias", (rows,))
                yield f"{block}{name}.weight", self._matrix(held, rows, columns)
        for name in ("layernorm.weight", "layernorm.bias"):
            yield name, self._array(name, (d,))

    def _array(self, name: str, shape: tuple[int, ...]) -> NDArray[np.float32]:
        held = self._tensor(name).shape
        if held != shape:
            raise self._other(f"a {name} of the shape {list(held)}, not {list(shape)}")
        return self.graph.array(self.prefix + name)

    def _matrix(self, name: str, rows: int, columns: int) -> NDArray[np.float32]:
        """The weight [rows, columns] of a linear layer."""
        import numpy as np

        if self.prefix + f"{name}.weight" in self.graph.tensors:
            return self._array(f"{name}.weight", (rows, columns))
        products = [
            self._made_by[term]
            for operation in self._added[f"{self.prefix}{name}.bias"]
            for term in operation.inputs
            if term in self._made_by
        ]
        names = [term for operation in products for term in operation.inputs]
        names = [term for term in names if term in self.graph.tensors]
        if [operation.operator for operation in products] != ["MatMul"] or len(names) != 1:
            raise self._other(f"no single MatMul to whose product {name}.bias is added")
        held = self.graph.tensors[names[0]].shape
        if held != (columns, rows):
            raise self._other(
                f"a weight of {name} of the shape {list(held)}, not {[columns, rows]}"
            )
        return np.ascontiguousarray(self.graph.array(names[0]).T)

    def _position_embeddings(self) -> tuple[str, ...]:
        """The names of the constants with the position embeddings: of all tokens, or of the class
        token and of the patches, which an export that resizes them holds apart."""
        whole = self.prefix + _POSITIONS
        if whole in self.graph.tensors:
            names: tuple[str, ...] = (whole,)
        else:
            names = (*self._constants("Concat", patches=False), *self._constants("Reshape"))
            if len(names) != 2:
                raise self._other(f"neither {_POSITIONS} nor two constants in its place")
        for name in names:
            shape = self.graph.tensors[name].shape
            if len(shape) != 3 or shape[::2] != (1, self.width):
                raise self._other(f"position embeddings of the shape {list(shape)}")
        return names

    def _constants(self, operator: str, patches: bool = True) -> list[str]:
        """The constants [1, n, width] without a name of the model's that an operator reads: n 1 for
        the class token, more for patches."""
        read = dict.fromkeys(
            name for op in self.graph.operations if op.operator == operator for name in op.inputs
        )
        return [
            name
            for name in read
            if name in self.graph.tensors
            and not name.startswith(self.prefix or "embeddings.")
            and self._is_places(self.graph.tensors[name], patches)
        ]

    def _is_places(self, tensor: Tensor, patches: bool) -> bool:
        shape = tensor.shape
        return len(shape) == 3 and shape[::2] == (1, self.width) and (shape[1] > 1) == patches

    def _tensor(self, name: str) -> Tensor:
        if self.prefix + name not in self.graph.tensors:
            raise self._other(f"no tensor {name}")
        return self.graph.tensors[self.prefix + name]

    def _other(self, what: str) -> UserError:
        return UserError(
            f"{self.graph.path} has {what}: it is no DINOv2 of transformers as PyTorch exports it; "
            "take another file, or the model's checkpoint"
        )
