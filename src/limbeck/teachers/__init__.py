"""Teachers of any origin: transformers models, Python functions and files of scores."""
