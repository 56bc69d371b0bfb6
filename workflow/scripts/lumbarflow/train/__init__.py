"""Train: films in memory, augmentation, history, and the run of one network's training."""
