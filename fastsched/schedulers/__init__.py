"""The classes of torch.optim.lr_scheduler, on an engine."""
