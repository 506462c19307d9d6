"""One training run, in parts that `training/train.py` tells as a story: recipe, batches, checkpoints, model repo."""
