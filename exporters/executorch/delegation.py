"""How much of a network the delegate took, in words and as JSON."""

from typing import Any

from exporters.executorch.program import Program

MANY_PARTITIONS = 8
# Operators whose place in the middle of every transformer block splits a network into many partitions.
_SPLITTING = ("native_layer_norm", "native_group_norm", "_softmax", "bmm")


def delegation(program: Program) -> dict[str, Any]:
    """Facts for the artifact: partitions, operators inside and outside of them, planned memory in bytes."""
    return {
        "delegates": sorted(set(program.delegates)),
        "partitions": len(program.delegates),
        "delegated": dict(sorted(program.delegated.items())),
        "outside": dict(sorted(program.outside.items())),
        "planned_memory_bytes": program.memory_bytes,
    }


def delegation_notes(program: Program) -> tuple[str, ...]:
    """What a user has to know about them; nothing where no delegate was asked for or nothing is wrong."""
    if not program.delegates:
        return ()
    notes = []
    if len(program.delegates) > MANY_PARTITIONS:
        notes.append(
            f"The network is split into {len(program.delegates)} partitions (more than {MANY_PARTITIONS}), because "
            f"the delegate does not have {', '.join(sorted(program.outside))}; every split costs time."
        )
    left = sorted(name for name in program.outside if name.split("::")[-1].split(".")[0] in _SPLITTING)
    if left:
        notes.append(f"Outside of the delegate stay {', '.join(left)}, which ExecuTorch's own kernels compute.")
    return tuple(notes)
