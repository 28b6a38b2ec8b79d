"""Embeddings of a corpus of any size, in steps that survive being killed.

::

    a Parquet or JSONL(.gz) file, or a folder of them
      -> numbered shards of some thousand rows                         sources, plan, rows
      -> a warm model a process: claim a shard, embed it, the next     ledger, worker, executors
      -> read-outs from one forward pass -> one Parquet file a shard   columns, output
      -> moments of every shard, merged: the shape of the whole cloud  accumulators
      -> a summary                                                     embedding, command

Every file is written under a temporary name and renamed; a shard counts once its ledger entry is
there, with the checksum of its file.
"""
