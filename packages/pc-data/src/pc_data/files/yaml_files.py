"""YAML of plain values whose size is what its text says."""

import yaml

_MOST = 100_000  # values, counted as often as they are used


class PlainLoader(yaml.SafeLoader):
    """A safe loader that refuses a document whose aliases unfold to very much, or to themselves."""

    def get_single_node(self) -> yaml.Node | None:
        """Compose the document and count it."""
        node = super().get_single_node()
        if node is not None and _count(node, {}) > _MOST:
            raise yaml.YAMLError(f"its aliases unfold to more than {_MOST} values")
        return node


def _count(node: yaml.Node, known: dict[int, int]) -> int:
    """How many nodes there are below a node; one that contains itself has endless ones."""
    if id(node) in known:
        return known[id(node)]
    if isinstance(node, yaml.ScalarNode):
        return 1
    known[id(node)] = _MOST + 1
    if isinstance(node, yaml.MappingNode):
        children = [child for pair in node.value for child in pair]
    else:
        children = node.value
    known[id(node)] = 1 + sum(_count(child, known) for child in children)
    return known[id(node)]
