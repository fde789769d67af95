"""The demo: a real model on real flights, whose data really drift. Nothing in it is made up.

    layout      where the demo keeps its things
    configs     its ports, gateway.json and opsdeck.yaml, written before an engine starts
    flights     the 336,776 flights of 2013 out of New York, joined with the hour's weather
    prepare     a step: read them once and keep them as one array on disk
    train       a step: learn champion or challenger
    export      the learned model as ONNX, compared with its source
    register    a step: log and register both in MLflow, and lay out what is served
    calendar    which flight is sent when, and when its label is known
    replayer    a process: sends the flights through the gateway, and their labels when they land
    faults      inject and clear faults of the model servers

Each step and process runs by itself as `python -m engine.demo.…`.
"""
