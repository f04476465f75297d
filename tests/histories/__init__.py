"""Histories of concurrent clients under faults, and whether they keep the platform's promises.

As Jepsen does it: clients record what they asked for and were told, while processes, members of etcd and connections
are hurt at random. Afterwards `promises` judges the history. `python -m tests.histories.run` does so for as long as
it is told.
"""
