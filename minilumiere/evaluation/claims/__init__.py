"""What of the paper small scale can test. Read verdicts (the rules), ledger (which claims), then costs, samples, trained.

costs    counts and clocks, no weights      samples    the shipped nets, sampled      trained    small trainings, read back
"""
