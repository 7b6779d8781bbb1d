"""Membership-inference attacks on arrays of scores."""
