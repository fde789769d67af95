"""The append-only, hash-chained record of everything the engine intended and did."""
