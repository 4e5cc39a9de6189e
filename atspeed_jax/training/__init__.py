"""Training of any JAX model: one resumable loop, its optimizer, checkpoints, logs and device mesh."""
