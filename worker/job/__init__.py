"""A job's life: read it, run it once, publish what became of it, settle the delivery."""
