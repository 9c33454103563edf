"""An exported model: onnxruntime, tokenizers and numpy alone."""

from __future__ import annotations

import os
from typing import Any


def session(graph: bytes, threads: int | None = None) -> Any:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads or len(os.sched_getaffinity(0))
    options.log_severity_level = 3
    # Attention that is masked leaves probabilities too small for a normal number, and these are many times slower.
    options.add_session_config_entry("session.set_denormal_as_zero", "1")
    return onnxruntime.InferenceSession(graph, options, providers=["CPUExecutionProvider"])
