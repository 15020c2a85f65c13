"""Teachers of any origin: models of transformers, Python functions, files of scores; and their answers, kept."""
