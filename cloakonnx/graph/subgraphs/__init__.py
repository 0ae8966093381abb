"""Parts of a model that run by themselves: up to a tensor, from a tensor on, functions inlined."""
