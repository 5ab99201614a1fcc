"""Training: examples, losses, and the adapter to pytorch-lightning (extra [train])."""
