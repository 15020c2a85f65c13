"""Finished work: models by the hash of how they were made, small results by name, the ledger of a run."""
