"""Whether onnxruntime's products of uint8 and int8 saturate on this processor, found by computing one."""

from __future__ import annotations

import base64
import zlib
from functools import cache
from typing import Any

import numpy as np

ROWS, DEPTH, WIDTH = 8, 32, 16

# A graph of one node, com.microsoft's MatMulIntegerToFloat: "a" (N, DEPTH) uint8 by a table (DEPTH, WIDTH) of int8, all 127.
# As a constant, because onnx is not installed where models are only used; tests/inference/test_graph.py makes it from its parts.
_PRODUCT = (
    b"c-rIO5@N9GVC6FBVoc;>OyXiJ2BRt=#!4j--^3E%(j3pclGOCnqL6&IoczQRE8gV%T)o`P<f8oI{In7w#&oS777hgt0Rd(w#w4!>mikdJ"
    b"qJb8-0HYIQu@?&iLxa5*hX9ikW0e;pLzEyeg$eO+ad9vSv2ihQF>xp)0fj2TLX1!$0VftN1_5y=K`zu(Ccp>)`*0r~"
)


def product() -> bytes:
    """The graph."""
    return zlib.decompress(base64.b85decode(_PRODUCT))


@cache
def saturates(runtime: Any) -> bool:
    """Compute the largest sums: x86 processors without VNNI add pairs of products in 16 bits, and cut off what is larger.

    Args:
        runtime: the module onnxruntime.
    """
    try:
        session = runtime.InferenceSession(product(), providers=["CPUExecutionProvider"])
    except (
        Exception
    ):  # a build without this operator, on which no graph in int8 opens either, and those in float32 need no answer
        return False
    (found,) = session.run(None, {"a": np.full((ROWS, DEPTH), 255, np.uint8)})
    return not bool((found == DEPTH * 255 * 127).all())
