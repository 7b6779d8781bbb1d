"""The role of an example in the training of a model.

These are the codes of every `state` array [P, N]. They are written into files
of scores, so they never change.
"""

RETAINED = 0  # trained on, and kept
FORGOTTEN = 1  # trained on, and to be unlearned
NEVER_SEEN = 2  # in the pool, but not in this model's training set
EXCLUDED = 3  # in no set: validation, test
