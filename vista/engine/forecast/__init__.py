"""What a config will need before it runs: jobs, disk, memory, time, and what is missing.

Every figure is an estimate by a formula that its function states; where a size is not known, the
figure is None and is shown as "unknown". Imports no torch.
"""
