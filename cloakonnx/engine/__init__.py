"""How batches are run: the folder of finished batches beside an output."""
