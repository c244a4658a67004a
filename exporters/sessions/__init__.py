"""Running networks: one module per runtime, each needing only NumPy and that runtime."""
