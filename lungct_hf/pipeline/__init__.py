"""Many slices: reader processes feed a model in batches, and a journal makes the run restartable. No torch."""
