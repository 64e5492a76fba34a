"""The same stage in the libraries of others, each written as its own documentation advises.

Each program runs in an environment of its own, in which nothing of ours is installed: here only the standard library,
the peer and what imports nothing else may be imported.
"""
