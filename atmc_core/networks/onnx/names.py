"""The names of a file's input and output, of which torch's exporter does not take all."""

from dataclasses import dataclass
from pathlib import Path

import onnx

# The names that a file has until it is written, where the exporter does not take its own.
_IMAGES, _LOGITS = "atmc_images", "atmc_logits"


@dataclass(frozen=True)
class Names:
    """The names of input and output that a file is to have, and those it is exported with.

    Attributes:
        input_name: the name that the images are to have.
        output_name: the name that the logits are to have.
        images: the name with which the images are exported.
        logits: the name with which the logits are exported.
    """

    input_name: str
    output_name: str
    images: str
    logits: str

    @classmethod
    def safe(cls, input_name: str, output_name: str) -> "Names":
        """Choose names to export with: the wanted ones, unless the exporter refuses them."""
        names = (input_name, output_name)
        taken = names if all(map(_is_taken, names)) else (_IMAGES, _LOGITS)
        return cls(*names, *taken)

    def restore(self, path: Path) -> None:
        """Give a file the wanted names; another value that has one of them gets a new one.

        Args:
            path: the exported file, which is written anew only if its names are others.
        """
        model = onnx.load(path)
        graph = model.graph
        written = (graph.input[0].name, graph.output[0].name)
        if written == (self.input_name, self.output_name):
            return
        used = {name for node in graph.node for name in (*node.input, *node.output)}
        used |= {each.name for each in graph.initializer}
        wanted = dict(zip(written, (self.input_name, self.output_name), strict=True))
        renamed = {}
        for name in used & set(wanted.values()) - set(wanted):
            number = 0
            while f"{name}_{number}" in used | set(wanted.values()):
                number += 1
            renamed[name] = f"{name}_{number}"
        _rename(graph, renamed | wanted)
        onnx.save(model, path)


def _is_taken(name: str) -> bool:
    """Whether torch's exporter takes a name: it refuses numbers, and a text ends at a zero byte."""
    return name.isprintable() and not (name.isascii() and name.isdigit())


def _rename(graph: onnx.GraphProto, names: dict[str, str]) -> None:
    for node in graph.node:
        for field in (node.input, node.output):
            field[:] = [names.get(name, name) for name in field]
    for each in (*graph.initializer, *graph.input, *graph.output, *graph.value_info):
        each.name = names.get(each.name, each.name)
