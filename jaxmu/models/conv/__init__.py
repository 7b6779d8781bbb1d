"""Formulations of a convolution, and the choice between them.

choose      the convolution that models call; picks a formulation by shape
library     XLA's own convolution
patches     one matrix product over patches
dense       one matrix product over all pixels of a small image
winograd    F(2, 3) tiles
blocks      space-to-depth blocks for strided kernels
columns     neighbouring outputs as channels of one, for the library
depthwise   one filter per channel
parts       steps that these share
"""
