"""The console of Opsdeck: a thin Textual client of the engine that may die at any moment."""
