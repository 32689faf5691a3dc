"""What manifests of tests say, but for files."""

MANIFEST = {
    "task": {"name": "tagging"},
    "precision": "float32",
    "signatures": {"serving_default": {}},
    "versions": {"tensorflow": "2.21.0", "keras": "3.15.1"},
    "ops": ["FastWordpieceTokenizeWithOffsets", "MatMul", "TensorListSetItem"],
    "text_ops": ["FastWordpieceTokenizeWithOffsets"],
    "attributes": {"TensorListSetItem": ["resize_if_index_out_of_bounds"]},
    "parity": {"sentences": {"numbers": 1e-7, "agreement": 1.0, "texts": 13}},
}
