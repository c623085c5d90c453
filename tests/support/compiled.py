"""What torch has compiled in this process."""

import torch._dynamo


def graphs_compiled() -> int:
    """How many graphs: it must not grow while the clock charges ``train``."""
    return int(torch._dynamo.utils.counters["stats"]["unique_graphs"])
