"""The Python API of the whole workflow, also available as ``from ofa import ...``.

Each step takes and returns values that can be saved and read back:

    run = train("digits", "digits.run")
    table = build_table(run.supernet.space, "local-cpu")
    front = search(fit_predictor(run), [table])
    (best,) = query(front, {"latency_ms": "2ms"})
    bundle = specialize(run, best, "digits.bundle", front=front)
    verify(bundle, "local-cpu")
    export(bundle, "onnx", "digits.onnx")
"""

from __future__ import annotations

from ofa.api.searching import adopt, build_table, fit_predictor, query, search
from ofa.api.shipping import export, specialize, verify
from ofa.running import train

__all__ = ["adopt", "build_table", "export", "fit_predictor", "query", "search", "specialize", "train", "verify"]
