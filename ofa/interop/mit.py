"""Import from MIT's once-for-all package (Cai et al., ICLR 2020): supernets, settings, published networks, the accuracy predictor.

Key names, configs and features follow its PyPI release `ofa` 0.1.0.post202307202001; none of its code is used.
"""

from __future__ import annotations

from ofa.interop.mit_configs import arch, config
from ofa.interop.mit_networks import arch_from_net_config
from ofa.interop.mit_predictor import MitPredictor, load_predictor
from ofa.interop.mit_weights import load_supernet

__all__ = ["MitPredictor", "arch", "arch_from_net_config", "config", "load_predictor", "load_supernet"]
