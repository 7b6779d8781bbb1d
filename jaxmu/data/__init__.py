"""Data sets, splits and input: from archives to index tables on the device."""
