"""Writing down what kernels say: every state-bearing message becomes rows, in the kernel's order."""
