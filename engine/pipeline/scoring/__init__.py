"""How a model is asked for scores: the same way in the evaluation, the hard cases, the disturbances and the
comparison with the model in production.

    ONNX Runtime (no `evaluate.entry`)  `onnx_model.load` in a process of the engine's own interpreter
    a function of the project           the same process (`child`), in the project's interpreter
    a command                           files in, files out, for every call

`asking.Scorer` is any of them as one callable from a table to checked scores; `measuring` times them.
"""
