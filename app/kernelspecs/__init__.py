"""Kernelspecs: which kernels can be started here."""
