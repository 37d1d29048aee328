"""NVIDIA's driver, asked at arm's length: a worker process alone loads its library, and a client asks the worker."""
