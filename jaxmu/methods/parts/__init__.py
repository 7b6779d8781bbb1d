"""Parts that several methods share.

training      gradient steps, optimisers, schedules, random labels
forward       images in, logits out; teachers
losses        losses of a batch
weights       edits of weights by path; fresh and dead weights
select        the k smallest or largest of many numbers
last_blocks   training the last k blocks of a network alone
"""
