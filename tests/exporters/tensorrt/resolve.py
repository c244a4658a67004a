"""Which names of TensorRT a source uses, and whether the bindings that can be imported here have them.

Run as ``python resolve.py SOURCE...`` it prints JSON: ``resolved`` and ``missing`` names, and ``untyped``, values that
came from TensorRT and whose class neither an annotation nor the bindings' own documentation says.
"""

import ast
import importlib
import json
import re
import sys
from pathlib import Path

MODULE, UNKNOWN = "module", "unknown"


class Resolver(ast.NodeVisitor):
    """Follows modules, classes, instances and methods of TensorRT through one source."""

    def __init__(self, bindings):
        self.bindings = bindings
        self.resolved, self.missing, self.untyped = set(), set(), set()
        self.members, self.names = {}, {}

    def visit_ClassDef(self, node):
        self.members = {}
        for inner in ast.walk(node):
            if isinstance(inner, ast.AnnAssign):
                target = inner.target
                name = target.id if isinstance(target, ast.Name) else target.attr
                self.members[name] = self._annotated(inner.annotation, name)
            elif isinstance(inner, ast.FunctionDef) and inner.returns is not None:
                self.members[f"{inner.name}()"] = self._annotated(inner.returns, inner.name)
        self.generic_visit(node)
        self.members = {}

    def visit_FunctionDef(self, node):
        self.names = {
            argument.arg: self._annotated(argument.annotation, argument.arg)
            for argument in (*node.args.args, *node.args.kwonlyargs)
        }
        for statement in node.body:
            self.visit(statement)

    def visit_AnnAssign(self, node):
        self.generic_visit(node)
        if isinstance(node.target, ast.Name):
            self.names[node.target.id] = self._annotated(node.annotation, node.target.id)

    def visit_Assign(self, node):
        self.generic_visit(node)
        for target in node.targets:
            pairs = [(target, node.value)]
            if isinstance(target, ast.Tuple) and isinstance(node.value, ast.Tuple):
                pairs = zip(target.elts, node.value.elts, strict=True)
            for name, value in pairs:
                if isinstance(name, ast.Name):
                    self.names[name.id] = self._kind(value)

    def visit_Attribute(self, node):
        self.generic_visit(node)
        self._kind(node)

    def _annotated(self, annotation, name):
        """Classes that an annotation names; a module is known by the name that it is passed under."""
        if name == "tensorrt":
            return ((MODULE,),)
        text = "" if annotation is None else ast.unparse(annotation)
        classes = re.findall(r"\btrt\.(\w+)", text)
        for found in classes:
            self._note(hasattr(self.bindings, found), found)
        return tuple(("instance", found) for found in classes)

    def _kind(self, node):
        """What an expression is, as far as TensorRT goes: a tuple of possibilities, empty for something else."""
        if isinstance(node, ast.Name):
            return self.names.get(node.id) or (((MODULE,),) if node.id == "tensorrt" else ())
        if isinstance(node, ast.Attribute):
            if isinstance(node.value, ast.Name) and node.value.id == "self":
                return self.members.get(node.attr, ())
            return tuple(kind for base in self._kind(node.value) for kind in self._attribute(base, node))
        if isinstance(node, ast.Call):
            return self._called(node)
        return ()

    def _called(self, node):
        function = node.func
        if isinstance(function, ast.Attribute) and isinstance(function.value, ast.Name) and function.value.id == "self":
            return self.members.get(f"{function.attr}()", ())
        kinds = []
        for kind in self._kind(function):
            if kind[0] == "class":
                kinds.append(("instance", kind[1]))
            elif kind[0] == "method":
                document = getattr(getattr(self.bindings, kind[1]), kind[2]).__doc__ or ""
                found = re.search(r"-> (?:[\w.]*\.)?(\w+)", document)
                known = found is not None and hasattr(self.bindings, found[1])
                kinds.append(("instance", found[1]) if known else (UNKNOWN, f"{kind[1]}.{kind[2]}()"))
        return tuple(kinds)

    def _attribute(self, base, node):
        if base[0] == UNKNOWN:
            self.untyped.add(f"{base[1]}.{node.attr}")
            return
        owner = self.bindings if base[0] == MODULE else getattr(self.bindings, base[1], None)
        name = node.attr if base[0] == MODULE else f"{base[1]}.{node.attr}"
        there = hasattr(owner, node.attr)
        self._note(there, name)
        if not there:
            return
        value = getattr(owner, node.attr)
        if isinstance(value, type):
            yield ("class", node.attr)
        elif base[0] in ("instance", "class") and callable(value):
            yield ("method", base[1], node.attr)

    def _note(self, there, name):
        (self.resolved if there else self.missing).add(name)


def main():
    bindings = importlib.import_module("tensorrt_bindings")
    resolver = Resolver(bindings)
    for source in sys.argv[1:]:
        resolver.visit(ast.parse(Path(source).read_text(encoding="utf-8")))
    names = {key: sorted(getattr(resolver, key)) for key in ("resolved", "missing", "untyped")}
    sys.stdout.write(json.dumps({"version": bindings.__version__, **names}))


if __name__ == "__main__":
    main()
