"""Tools built on schedulers: early stopping, histories, the range test, simulation, plots."""
