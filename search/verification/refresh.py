"""Updates the latencies of a front after the table of a device was updated.

Shape suffix: N networks.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from ofa.arch import Arch
from ofa.arrays import Floats
from ofa.latency import LATENCIES
from ofa.space import Space
from search.budget import at_device
from search.front.front import Front
from search.latency import LatencySource

__all__ = ["renewed"]


def renewed(front: Front, space: Space, source: LatencySource) -> Front:
    """The front with a device's latencies as ``source`` estimates them now.

    Dominated networks, and the space's smallest latency, have no arch stored. Their latencies are rescaled by the change of front networks
    of similar latency (interpolated).

    Args:
        front: a front with latencies of the device.
        space: the space of the front's networks.
        source: latencies of the device.

    Returns:
        A new front.

    Raises:
        TableError: the source's table lacks blocks.
    """
    archs = [Arch.from_text(text) for text in front.networks["arch"]]
    estimates = source.estimates_of_rows(space.rows_in(source.space, space.encode_all(archs)))
    networks, dominated, least = front.networks.copy(), front.dominated.copy(), dict(front.info.least)
    for name, new_N in zip(LATENCIES, estimates, strict=True):
        column = at_device(name, source.device_name)
        old_N = front.columns[column]
        networks[column] = new_N
        if column in dominated:
            dominated[column] = _changed(dominated[column].to_numpy(dtype=np.float64), old_N, new_N)
        if column in least:
            least[column] = float(_changed(np.array([least[column]]), old_N, new_N)[0])
    latency = {**front.info.latency, source.device_name: source.info}
    return Front(networks, dominated, replace(front.info, least=least, latency=latency))


def _changed(values_N: Floats, old_N: Floats, new_N: Floats) -> Floats:
    order = np.argsort(old_N)
    return np.asarray(values_N * np.interp(values_N, old_N[order], (new_N / old_N)[order]))
