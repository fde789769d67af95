"""The demo: a real model on real flights, whose data really drift. Nothing in it is made up.

    layout      where the demo keeps its things, its ports, and the configs of its parts
    flights     the 336,776 flights of 2013 out of New York, joined with the hour's weather
    prepare     a step: read them once and keep them as one array on disk
    train       a step: learn champion or challenger; export and compare the model
    register    a step: log and register both in MLflow, and lay out what is served
    replayer    a process: sends the flights through the gateway, and their labels when they land
    faults      inject and clear faults of the model servers

Each step and process runs by itself as `python -m engine.demo.…`.
"""
