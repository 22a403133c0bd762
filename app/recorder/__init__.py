"""Writing down what kernels say: each message with state becomes rows, in the kernel's order."""
