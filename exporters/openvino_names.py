"""Names of OpenVINO operations: the file itself says which module and which captured value they come from."""

from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any

from torch import fx
from torch.export import ExportedProgram

from exporters.layers import decomposed_names, layer_name, module_path, origin, producer
from exporters.openvino_audit import COMPUTING


def carry_names(model: Any, converted: Iterable[fx.Node], program: ExportedProgram) -> None:
    """Name operations ``<module path>/<value>``, values as in ``program.run_decompositions({})``, in place.

    Operations that OpenVINO made of several, or that have no value of their own, get a third part. OpenVINO numbers its
    own names by process, so without this no two files of one network were equal.

    Args:
        model: The ``openvino.Model``.
        converted: Nodes of the graph that it was made from.
        program: What was captured.
    """
    nodes = {node.name: node for node in converted}
    names = decomposed_names(nodes.values(), program)
    taken: Counter[str] = Counter()
    for operation in model.get_ordered_ops():
        operation.set_friendly_name(_name(operation, nodes, names, taken))
        for port in operation.outputs():
            port.get_tensor().set_names(set())
    model.set_friendly_name("network")


def name_new_operations(model: Any) -> None:
    """Name what was added after `carry_names`, in place, so that names do not depend on what the process did before."""
    taken: Counter[str] = Counter()
    for operation in model.get_ordered_ops():
        if "/" not in operation.get_friendly_name():
            kind = operation.get_type_name()
            taken[kind] += 1
            operation.set_friendly_name(f"//{kind}_{taken[kind]}")
    model.set_friendly_name("network")


def _name(operation: Any, nodes: Mapping[str, fx.Node], names: Mapping[str, str], taken: Counter[str]) -> str:
    maker, value = _maker(operation, nodes), _value(operation, nodes)
    kind = operation.get_type_name()
    made_by = maker or value or _next_value(operation, nodes)
    if made_by is None:
        path = ""
    else:
        computing = producer(made_by) if kind in COMPUTING else None
        path = layer_name(computing) if computing is not None else module_path(made_by)
    if maker is not None and value is not None and origin(maker) == origin(value) and value.name in names:
        return f"{path}/{names[value.name]}"
    stem = f"{path}/{made_by.name if made_by is not None else ''}/{kind}"
    taken[stem] += 1
    return f"{stem}_{taken[stem]}"


def _maker(operation: Any, nodes: Mapping[str, fx.Node]) -> fx.Node | None:
    return nodes.get(operation.get_friendly_name().partition("/")[0])


def _value(operation: Any, nodes: Mapping[str, fx.Node]) -> fx.Node | None:
    tensors = operation.output(0).get_names() if operation.get_output_size() == 1 else ()
    return next((nodes[name.partition(":")[0]] for name in sorted(tensors) if name.partition(":")[0] in nodes), None)


def _next_value(operation: Any, nodes: Mapping[str, fx.Node]) -> fx.Node | None:
    """The first captured value after an operation into which OpenVINO folded others."""
    found = operation
    while found.get_output_size() == 1 and len(found.output(0).get_target_inputs()) == 1:
        found = next(iter(found.output(0).get_target_inputs())).get_node()
        named = _maker(found, nodes) or _value(found, nodes)
        if named is not None:
            return named
    return None
