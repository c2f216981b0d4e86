"""Trained weights into a network: a file that others published -> the same function here.

    read.read_tensors(path)         key -> tensor, whatever a checkpoint wraps around it; no code of the file is run
    maps.sources_of(module)         under which names others publish this network's layers, a `Source` each
    place.load(module, name, path)  picks the source whose names are there, fills every tensor, or says what would fit

A map is a list of pairs, our layer beside theirs, made from the module's own structure: it holds for other widths too.
Nothing is matched by order or by shape. Where an implementation differs in a setting (the epsilon of a normalisation, the
order of a shuffle), its `Source` sets that; where it differs otherwise, `Source.note` says so and the command prints it.
"""

from pipeline.weights.place import Placed, load

__all__ = ["Placed", "load"]
