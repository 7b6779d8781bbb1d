"""Membership attacks on populations of models: arrays in, numbers out.

Read `scores` (what attacks read) and `interface` (what an attack is) first,
then `registry` (all attacks and how to run them). Each algorithm is in one file
with the cards of its attacks; `log_odds`, `leave_out`, `roc` and `intervals`
hold the shared parts, and `simulation` makes populations with a known leak.
`jaxmu.testing.check_attack` checks any attack.
"""
