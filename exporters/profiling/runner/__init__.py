"""The measuring itself: standard library, NumPy and the runtime, Python 3.10 and newer.

The folder is copied beside an artifact and run there with ``python -m runner``; the rest of `exporters.profiling`
imports the same loops. Nothing in it may import from outside it.
"""
