"""The nouns every other package speaks: types, hyper-parameters, draws."""
