"""Finds what an output of an ONNX graph needs, and puts the nodes into running order.

Files carry more than a network: nodes and weights that nothing uses any more, inputs of training,
outputs for other purposes. Only what the classes are computed from is read, checked and trained.
"""

import heapq
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from onnx import GraphProto, NodeProto, TensorProto, ValueInfoProto

from atmc_core.networks.onnx.refusals import all_shown, label_of, malformed, shown

# The operators that make another form of the same scores, as far as an output's choice goes.
_SAME_SCORES = {"Softmax", "LogSoftmax", "Sigmoid", "Log", "Identity", "Cast", "Dropout"}
_SAME_SCORES |= {"Reshape", "Flatten", "Squeeze"}
# Among at most this many outputs the right one is looked for.
_MAX_CHOICE = 16
_FLOATS = (TensorProto.FLOAT, TensorProto.FLOAT16, TensorProto.BFLOAT16, TensorProto.DOUBLE)


@dataclass(frozen=True)
class Needed:
    """What remains of a graph.

    Attributes:
        nodes: the needed nodes in running order, each with its number in the file.
        names: the names that the needed nodes use, and the output's.
    """

    nodes: list[tuple[int, NodeProto]]
    names: set[str]

    def is_all_of(self, graph: GraphProto) -> bool:
        """Whether nothing of a graph would be removed."""
        named = (*graph.initializer, *graph.input, *graph.output)
        return len(self.nodes) == len(graph.node) and all(v.name in self.names for v in named)


def find_needed(graph: GraphProto, output: str) -> Needed:
    """Walk back from an output to all that it is computed from.

    Returns:
        The nodes in an order in which each comes after those whose results it uses; nodes that are
        in such an order stay as they are.

    Raises:
        InvalidInput: ``malformed_model`` if two nodes make the same result, or there is a cycle.
    """
    made_by = _makers(graph.node)
    names, places, ahead = {output}, set[int](), [output]
    while ahead:
        place = made_by.get(ahead.pop())
        if place is None or place in places:
            continue
        places.add(place)
        new = {name for name in graph.node[place].input if name} - names
        names |= new
        ahead.extend(new)
    return Needed([(place, graph.node[place]) for place in _ordered(graph, places, made_by)], names)


def _makers(nodes: Iterable[NodeProto]) -> dict[str, int]:
    """The index of the node that makes each result."""
    made_by: dict[str, int] = {}
    for place, node in enumerate(nodes):
        for name in node.output:
            if name in made_by:
                raise malformed(f"{label_of(place, node)} makes {shown(name)} again")
            if name:
                made_by[name] = place
    return made_by


def _ordered(graph: GraphProto, places: set[int], made_by: Mapping[str, int]) -> list[int]:
    """The places in running order; of those that can run, the first in the file comes first."""
    waits = {
        place: {made_by[name] for name in graph.node[place].input if name in made_by}
        for place in places
    }
    followers = defaultdict[int, list[int]](list)
    for place, before in waits.items():
        for each in before:
            followers[each].append(place)
    ready = [place for place, before in waits.items() if not before]
    heapq.heapify(ready)
    order = []
    while ready:
        order.append(heapq.heappop(ready))
        for place in followers[order[-1]]:
            waits[place].discard(order[-1])
            if not waits[place]:
                heapq.heappush(ready, place)
    if len(order) < len(places):
        raise _cycle(graph, waits)
    return order


def _cycle(graph: GraphProto, waits: Mapping[int, set[int]]) -> Exception:
    """The error for nodes that wait for each other; walks back until a node comes again."""
    place, walked = next(each for each, before in waits.items() if before), list[int]()
    while place not in walked:
        walked.append(place)
        place = min(each for each in waits[place] if waits[each])
    around = walked[walked.index(place) :][::-1]
    labels = [label_of(each, graph.node[each]) for each in around[:4]]
    return malformed(f"its nodes form a cycle: {', '.join(labels)}")


def choose_output(graph: GraphProto) -> str:
    """The name of the output that holds the classes' scores.

    Of several outputs it is the one that is floats ``[N, classes]``. Where one is computed from
    another, the other is a feature; where both are the same scores in another form (logits and
    probabilities), the first is as good as the second.

    Raises:
        InvalidInput: ``malformed_model`` if there is none, or the choice is not clear.
    """
    names: list[str] = list(dict.fromkeys(each.name for each in graph.output))
    if not names:
        raise malformed("it has no output; a classifier's is [N, classes]")
    if len(names) == 1:
        return names[0]
    fitting = [each.name for each in graph.output if _may_be_scores(each)]
    if not fitting:
        raise malformed(
            f"none of its outputs {all_shown(names)} is [N, classes] of floats; a classifier's is"
        )
    if len(fitting) > _MAX_CHOICE:
        raise malformed(f"{len(fitting)} of its outputs can be the classes' scores; keep one")
    made_by = _makers(graph.node)
    by_scores = {_scores(graph, name, made_by): name for name in reversed(fitting)}
    by_scores |= {name: name for name in fitting if name in by_scores}
    features = {
        scores
        for other in by_scores
        for scores in find_needed(graph, other).names.intersection(by_scores)
        if scores != other
    }
    left: list[str] = [name for scores, name in by_scores.items() if scores not in features]
    if len(left) != 1:
        raise malformed(
            f"its outputs {all_shown(left[::-1])} can all be the classes' scores: keep one, "
            "onnx.utils.extract_model('model.onnx', 'one.onnx', ['input'], ['output'])"
        )
    return left[0]


def _may_be_scores(value: ValueInfoProto) -> bool:
    tensor = value.type.tensor_type
    kind = value.type.WhichOneof("value") in (None, "tensor_type")
    # Axes of one entry may stand behind the classes.
    behind = all(dim.dim_value == 1 for dim in tensor.shape.dim[2:])
    ranks = (len(tensor.shape.dim) >= 2 and behind) or not tensor.HasField("shape")
    return kind and ranks and tensor.elem_type in (TensorProto.UNDEFINED, *_FLOATS)


def _scores(graph: GraphProto, name: str, made_by: Mapping[str, int]) -> str:
    """The result that an output is another form of."""
    seen: set[str] = set()
    while name in made_by and name not in seen:
        seen.add(name)
        node = graph.node[made_by[name]]
        if node.op_type not in _SAME_SCORES or not node.input:
            break
        name = node.input[0]
    return name


def drop_unneeded(graph: GraphProto, needed: Needed, output: str) -> None:
    """Remove from a graph what is not needed, and sort its nodes."""
    if [place for place, _ in needed.nodes] != list(range(len(graph.node))):
        # Copies, since the nodes that are removed from a graph are gone.
        nodes = [NodeProto.FromString(node.SerializeToString()) for _, node in needed.nodes]
        del graph.node[:]
        graph.node.extend(nodes)
    for values, keep in (
        (graph.initializer, needed.names),
        (graph.input, needed.names),
        (graph.output, {output}),
    ):
        for place in range(len(values) - 1, -1, -1):
            if values[place].name not in keep:
                del values[place]
