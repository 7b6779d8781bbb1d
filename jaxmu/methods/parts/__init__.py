"""Parts that several methods share.

training      gradient steps, passes over data, optimisers, learning rates
forward       examples in, logits out; teachers
losses        losses of a batch; weights of classes
weights       edits of weights by path; fresh and dead weights
select        the k smallest or largest of many numbers
last_blocks   training the last k blocks of a network alone
"""
