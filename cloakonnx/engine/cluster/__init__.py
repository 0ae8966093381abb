"""Batches on the machines of a Ray cluster: the connection, what travels, the workers and their faults."""
