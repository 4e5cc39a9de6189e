"""Training of any JAX model: a resumable loop, optimizer, checkpoints, logs, mesh."""
